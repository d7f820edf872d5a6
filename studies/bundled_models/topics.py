"""Word lists that the prompt templates are filled from."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list."""
    return tuple(entry.strip() for entry in text.replace("\n", " ").split(",") if entry.strip())


SCIENCE = words("""
photosynthesis, gravity, evaporation, the water cycle, magnetism, static electricity, friction, the speed of light,
sound waves, volcanoes, earthquakes, tides, eclipses, the seasons, the ozone layer, climate change, the greenhouse effect,
black holes, stars, comets, the Moon, the solar system, atoms, molecules, chemical reactions, acids and bases, rust,
fermentation, vaccines, the immune system, bacteria, viruses, antibiotics, DNA, genes, evolution, natural selection,
the food chain, ecosystems, pollination, hibernation, migration of birds, coral reefs, rainforests, deserts, fossils,
plate tectonics, erosion, the digestive system, the heart, the lungs, the brain, sleep, dreams, memory, muscles, bones,
the skin, vitamins, protein, blood pressure, allergies, solar energy, wind power, nuclear energy, batteries, electric motors,
semiconductors, lasers, mirrors, rainbows, thunderstorms, tornadoes, hurricanes, snow, fog, clouds, the water table,
quantum mechanics, relativity, entropy, momentum, inertia, density, buoyancy, pressure, heat transfer, radioactivity
""")
TECHNOLOGY = words("""
the internet, search engines, email, cloud computing, artificial intelligence, machine learning, neural networks,
databases, encryption, passwords, two-factor authentication, blockchain, open source software, operating systems,
compilers, version control, web browsers, cookies on websites, APIs, JSON, spreadsheets, smartphones, GPS, Wi-Fi, Bluetooth,
3D printing, drones, robots, self-driving cars, electric cars, virtual reality, video games, digital cameras, touch screens,
barcodes, QR codes, recursion, sorting algorithms, binary search, hash tables, linked lists, stacks and queues, object-oriented
programming, functional programming, unit testing, debugging, garbage collection, caching, load balancing, user interfaces,
data privacy, phishing, computer viruses, firewalls, social media algorithms, recommendation systems, speech recognition
""")
SOCIETY = words("""
inflation, supply and demand, interest rates, taxes, budgets, credit scores, insurance, the stock market, mutual funds,
compound interest, minimum wage, unemployment, globalization, free trade, entrepreneurship, marketing, branding, teamwork,
leadership, time management, negotiation, remote work, job interviews, public speaking, critical thinking, democracy,
elections, constitutions, human rights, freedom of speech, the separation of powers, the United Nations, the Industrial
Revolution, the Renaissance, the Roman Empire, ancient Egypt, ancient Greece, the Silk Road, the printing press, World War I,
World War II, the Cold War, the French Revolution, the American Civil War, colonialism, urbanization, public transport,
recycling, renewable energy, sustainable farming, deforestation, plastic pollution, biodiversity, water conservation,
volunteering, education, homework, reading habits, libraries, museums, philosophy, ethics, stoicism, utilitarianism,
psychology, motivation, habits, procrastination, stress, mindfulness, friendship, empathy, honesty, patience, gratitude
""")
EVERYDAY = words("""
cooking rice, baking bread, making tea, making coffee, frying eggs, making pancakes, growing tomatoes, watering houseplants,
composting, cleaning a kitchen, washing windows, removing stains, doing laundry, ironing a shirt, sewing a button,
painting a wall, fixing a leaky tap, changing a light bulb, saving electricity, saving money, planning a trip, packing a
suitcase, camping, hiking, swimming, running a marathon, learning to ride a bicycle, yoga, meditation, stretching,
strength training, healthy snacks, eating more vegetables, drinking enough water, sleeping better, waking up early,
learning a new language, learning the guitar, learning the piano, drawing, photography, knitting, gardening, bird watching,
chess, reading more books, writing a diary, organising a desk, decluttering a closet, planning a birthday party,
choosing a gift, hosting a dinner, taking care of a dog, taking care of a cat, keeping goldfish, walking to work,
studying for an exam, taking notes, writing an essay, giving a presentation, writing a resume, preparing for an interview,
making friends, resolving an argument, apologising, asking for help, working from home, taking breaks, reducing screen time,
first aid, treating a cold, preventing sunburn, brushing teeth, tying shoelaces, driving in the rain, parking a car,
changing a tyre, planning meals for a week, buying a used car, renting an apartment, moving house, recycling at home
""")
THINGS = words("""
a bicycle, an umbrella, a telescope, a microscope, a thermometer, a compass, a clock, a calculator, a refrigerator,
a microwave oven, a vacuum cleaner, a washing machine, a bridge, a sailing boat, a submarine, a hot air balloon, an aeroplane,
a helicopter, a steam engine, a printing press, a pencil, a notebook, a candle, a mirror, a lighthouse, a windmill, a dam,
a greenhouse, a violin, a drum, a trumpet, a kite, a backpack, a water bottle, a scarf, a hat, a pair of glasses, a teapot
""")
ANIMALS = words("""
cat, dog, fox, rabbit, bear, owl, elephant, penguin, dolphin, turtle, lion, tiger, horse, cow, sheep, goat, frog, bee,
butterfly, ant, spider, eagle, parrot, crow, whale, shark, octopus, squirrel, hedgehog, mouse, wolf, deer, kangaroo, koala
""")
FOODS = words("""
apple, banana, orange, tomato, potato, carrot, onion, cheese, bread, rice, pasta, soup, salad, chicken, fish, egg, milk,
honey, chocolate, yogurt, lentils, beans, mushroom, pumpkin, strawberry, lemon, garlic, spinach, avocado, oats
""")
PLACES = words("""
a small village, a busy city, a quiet library, an old castle, a deep forest, a sunny beach, a snowy mountain, a desert,
a space station, an island, a school, a hospital, a train station, a market, a farm, a museum, a lighthouse, a bakery,
a garden, a river bank, a cave, a theatre, a spaceship, an underwater city, a kingdom in the clouds, a haunted house
""")
COUNTRIES = words("""
France, Germany, Italy, Spain, Portugal, Greece, Norway, Sweden, Poland, Japan, China, India, Thailand, Vietnam, Indonesia,
Australia, New Zealand, Canada, Mexico, Brazil, Argentina, Chile, Peru, Egypt, Kenya, South Africa, Morocco, Nigeria, Turkey,
Russia, the United Kingdom, Ireland, the Netherlands, Belgium, Switzerland, Austria, Denmark, Finland, Iceland, Cuba
""")
PEOPLE = words("""
Albert Einstein, Isaac Newton, Marie Curie, Charles Darwin, Leonardo da Vinci, William Shakespeare, Jane Austen, Mozart,
Beethoven, Galileo Galilei, Ada Lovelace, Alan Turing, Nikola Tesla, Thomas Edison, Mahatma Gandhi, Nelson Mandela,
Martin Luther King Jr., Abraham Lincoln, George Washington, Cleopatra, Julius Caesar, Aristotle, Plato, Socrates, Confucius,
Vincent van Gogh, Pablo Picasso, Frida Kahlo, Florence Nightingale, Rosa Parks, Amelia Earhart, Neil Armstrong, Louis Pasteur
""")
JOBS = words("""
teacher, doctor, nurse, farmer, baker, chef, carpenter, electrician, plumber, engineer, scientist, astronaut, pilot, sailor,
firefighter, police officer, judge, lawyer, journalist, writer, painter, musician, dancer, photographer, librarian, gardener,
shopkeeper, waiter, bus driver, software developer, data analyst, project manager, marketing manager, student, mail carrier
""")
NAMES = words("""
Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Isla, Jack, Kate, Liam, Maya, Noah, Olivia, Paul, Quinn, Rosa, Sam, Tina,
Uma, Victor, Wendy, Xavier, Yara, Zoe, Amir, Bella, Carlos, Diana, Elias, Fatima, George, Hana, Ivan, Julia, Kofi, Lena, Marco,
Nina, Omar, Priya, Ravi, Sofia, Tom, Lucy, Peter, Mary, John, Sarah, James, Linda, Mike, Laura, Kevin, Emily, Daniel, Alice
""")
ADJECTIVES = words("""
brave, shy, curious, lazy, clever, kind, grumpy, tiny, lonely, cheerful, forgetful, honest, young, old, lost, hungry, sleepy,
magical, friendly, clumsy, stubborn, gentle, proud, patient, restless, mysterious, wise, playful, nervous, determined
""")
OBJECTS = words("""
a lost key, an old map, a broken clock, a magic lamp, a red balloon, a golden coin, a strange letter, a silver ring,
a paper boat, a music box, a forgotten book, a glowing stone, a wooden flute, a torn photograph, a tiny robot, a blue feather,
a secret door, a talking mirror, a treasure chest, a warm blanket, a mysterious egg, a locked diary, a lantern, a seed
""")
FEELINGS = words("""
happy, sad, tired, bored, nervous about tomorrow, stressed at work, lonely, excited, angry with a friend, worried about an exam,
proud of my work, unsure about my future, homesick, overwhelmed, grateful, unmotivated, jealous, confused, disappointed
""")
ADVERBS = words("slowly, quickly, quietly, bravely, happily, carefully, suddenly, gently, loudly, patiently")
STYLES = words("""
in simple words, in one paragraph, in two or three sentences, to a ten-year-old, briefly, with an example, step by step,
in a friendly tone, in plain English, with an analogy, for a beginner, in a short list, in your own words
""")
LENGTHS = words(
    "in one sentence, in two sentences, in three sentences, in a short paragraph, in about 50 words, in about 80 words"
)
WORD_PAIRS = words("""
happy, big, fast, bright, cold, easy, strong, quiet, brave, rich, clean, early, empty, full, gentle, hard, heavy, high, kind,
large, light, long, loud, modern, narrow, new, old, polite, poor, quick, rare, rough, sad, safe, sharp, short, simple, slow,
small, smooth, soft, sour, sweet, tall, thick, tidy, tiny, warm, weak, wide, wild, wise, young, important, famous, calm, angry
""")
IDIOMS = words("""
break the ice, a piece of cake, once in a blue moon, hit the books, the early bird catches the worm, cost an arm and a leg,
under the weather, bite off more than you can chew, let the cat out of the bag, spill the beans, on thin ice,
the ball is in your court, better late than never, a blessing in disguise, actions speak louder than words, cut corners,
get out of hand, time flies, practice makes perfect, don't judge a book by its cover, kill two birds with one stone
""")
