"""Everyday prompts: questions, explanations, how-to, stories, lists, letters, rewriting, classification, roleplay."""

from __future__ import annotations

import random

from studies.bundled_models import topics as t

_SUBJECTS = (*t.SCIENCE, *t.TECHNOLOGY, *t.SOCIETY)
_SENTENCES = (
    "The {adj} {animal} {adverb} walked to {place}.", "{name} likes {food} and {food2} for breakfast.",
    "My {job} friend {name} bought {thing} last week.", "Yesterday {name} found {object} in {place}.",
    "{topic} is important because it affects everyone.", "The {job} worked {adverb} all day long.",
    "We are going to {country} next summer with {name}.", "{name} was {adj}, but {name2} was not worried.",
    "I think that {activity} is a good way to relax.", "She told me that {name} want to visit {country}.",
    "He dont know how to use {thing}.", "The meeting has been moved to Monday because the {job} is ill.",
)  # fmt: skip
_REVIEWS = (
    "I loved this {thing}, it works perfectly!", "The food was cold and the {job} was rude.", "It was okay, nothing special.",
    "What a wonderful trip to {country}!", "I will never buy {thing} here again.", "The {job} was friendly and helped us a lot.",
    "The book about {topic} was boring and far too long.", "Great service, fast delivery, very happy!",
)  # fmt: skip

TEMPLATES: dict[str, tuple[str, ...]] = {
    "explain": (
        "Explain {topic} {style}.", "What is {topic}?", "How does {topic} work?", "Why is {topic} important?", "Describe {topic} {length}.",
        "Can you explain {topic} {style}?", "Tell me about {topic}.", "What should everyone know about {topic}?", "Define {topic} {length}.",
        "What are the main causes and effects of {topic}?", "What are the benefits and drawbacks of {topic}?", "Give an overview of {topic}.",
        "What is a common misconception about {topic}?", "How would you explain {topic} to a {job}?", "How did {topic} change the world?",
        "Give me three facts about {topic}.", "What is the history of {topic}?", "Give a real-world example of {topic}.",
        "How does {topic} affect our daily life?", "Summarize what {topic} means {length}.", "What questions do people ask about {topic}?",
        "Discuss {topic} and its impact on society.", "Describe five key ideas behind {topic}.", "What would happen without {topic}?",
    ),
    "how_to": (
        "How do I get better at {activity}?", "Give me {n} tips for {activity}.", "What are the steps for {activity}?", "How do I start with {activity}?",
        "What do I need for {activity}?", "What are common mistakes in {activity}?", "Why is {activity} good for you?", "Write a short guide to {activity}.",
        "I am new to {activity}. What should I know?", "Write a checklist for {activity}.", "How much time does {activity} take?",
        "Explain {activity} step by step.", "How can a busy {job} find time for {activity}?", "What is the best way of {activity}?",
    ),
    "compare": (
        "What is the difference between {topic} and {topic2}?", "Compare {thing} and {thing2}.", "Compare {animal} and {animal2} {length}.",
        "Which is better for you, {food} or {food2}, and why?", "Compare life in {country} and {country2}.",
        "What do {topic} and {topic2} have in common?", "Is it better to be a {job} or a {job2}?", "Compare {activity} with {activity2}.",
        "How are {topic} and {topic2} related?",
    ),
    "story": (
        "Write a short story about a {adj} {animal} in {place}.", "Write a short story about {name}, a {adj} {job} who finds {object}.",
        "Tell me a story about {name} and {name2} in {place}.", "Write a bedtime story about a {animal} and a {animal2}.",
        "Write the beginning of a story set in {place} with {object}.", "Write a funny story about a {job} and a {animal}.",
        "Write a story in three sentences about {object}.", "Tell a story about friendship between a {animal} and a {job}.",
        "Write a mystery about {object} found in {place}.", "Write a fable about a {adj} {animal} that teaches {topic}.",
        "Continue the story: {name} opened the door and saw {object}.", "Write a short scene in which {name} meets a {adj} {animal}.",
        "Imagine you are a {adj} {animal} living in {place}. Describe your day.", "Write a dialogue between a {job} and a {job2}.",
        "Write a diary entry of a {adj} {job}.", "Write a conversation between {name} and {name2} about {topic}.",
        "Describe {place} {style}, using all the senses.", "Invent a {adj} hero who is a {job} and describe them.",
    ),
    "poem": (
        "Write a poem about {place}.", "Write a haiku about {topic}.", "Write a short poem about a {adj} {animal}.", "Write four rhyming lines about {food}.",
        "Write a limerick about a {job}.", "Write a song verse about {topic}.", "Write a short poem for {name}'s birthday.",
    ),
    "list": (
        "List {n} uses of {thing}.", "Name {n} animals that live in {place}.", "List {n} reasons to visit {country}.", "List {n} facts about the {animal}.",
        "Give {n} ideas for a story about {object}.", "Suggest {n} names for a {animal}.", "List {n} healthy meals with {food}.",
        "List {n} questions to ask a {job}.", "Give {n} examples of {topic}.", "Name {n} skills that a {job} needs.", "List {n} things to do in {country}.",
        "Suggest {n} titles for an article about {topic}.", "List the pros and cons of {activity}.", "Make a shopping list for a meal with {food} and {food2}.",
        "Write a simple recipe with {food} and {food2}.", "Suggest {n} gifts for a {job}.", "Come up with {n} slogans for a shop that sells {food}.",
    ),
    "letter": (
        "Write a short email to a {job} asking about {topic}.", "Write a thank-you note to {name} for {object}.", "Write a letter to {name} about a trip to {country}.",
        "Write an invitation to a party at {place}.", "Write a polite email to {name} to cancel a meeting.", "Write a short apology to {name} for being late.",
        "Write a job advertisement for a {job}.", "Write a product description for {thing}.", "Write a short speech about {topic}.",
        "Write a tweet about {topic}.", "Write a short cover letter for a {job} position.", "Write a blog introduction about {activity}.",
        "Write a persuasive paragraph about {topic}.", "Write a short review of a visit to {place}.", "Write a text message to {name} about dinner.",
    ),
    "facts": (
        "What is the capital of {country}?", "Who was {person}?", "What is {person} famous for?", "Where is {country}?", "What language is spoken in {country}?",
        "What do {animal}s eat?", "Where do {animal}s live?", "How long does a {animal} live?", "What does a {job} do?", "What is {country} known for?",
        "Is {food} healthy?", "How is {food} made or grown?", "Who invented {thing}?", "What is {thing} used for?", "How does {thing} work?",
        "When did {person} live?", "What is the climate of {country} like?", "What is the currency of {country}?", "Why do {animal}s sleep?",
        "How do you become a {job}?", "What vitamins are in {food}?", "What did {person} believe?", "What is the largest city in {country}?",
    ),
    "rewrite": (
        "Rewrite this sentence in the past tense: {sentence}", "Correct the grammar: {sentence}", "Make this sentence more formal: {sentence}",
        "Rewrite in a friendlier tone: {sentence}", "Paraphrase: {sentence}", "Turn this into a question: {sentence}", "Make this shorter: {sentence}",
        "Add more detail to this sentence: {sentence}", "Summarize in a few words: {sentence} {sentence2}", "Summarize: {sentence} {sentence2} {sentence3}",
        "Find the verbs in this sentence: {sentence}", "Find the nouns in this sentence: {sentence}", "Who is mentioned in this text? {sentence} {sentence2}",
        "Read the text and answer the question. Text: {sentence} {sentence2} Question: What happened?", "Write a headline for this: {sentence} {sentence2}",
    ),
    "classify": (
        "Is this review positive or negative? \"{review}\"", "Classify the sentiment: {review}", "Is a {animal} a mammal, a bird, a fish, a reptile or an insect?",
        "Is {food} a fruit, a vegetable or something else?", "Which word does not fit: {animal}, {animal2}, {food}, {animal3}?",
        "Put these in alphabetical order: {animal}, {food}, {animal2}, {food2}.", "What do {animal}, {animal2} and {animal3} have in common?",
        "Sort these into animals and food: {animal}, {food}, {animal2}, {food2}.", "What emotion does this express? \"{review}\"",
    ),
    "language": (
        "Give a synonym for \"{word}\" and use it in a sentence.", "What is the opposite of \"{word}\"?", "Use the word \"{word}\" in a sentence.",
        "What does the idiom \"{idiom}\" mean?", "Use the idiom \"{idiom}\" in a sentence.", "Write a sentence with the words \"{word}\" and \"{animal}\".",
        "What does \"{word}\" mean?", "Write {n} sentences about a {word} {animal}.", "Give three words that rhyme with \"{word}\".",
    ),
    "chat": (
        "I feel {feeling}. What should I do?", "My friend {name} is {feeling}. How can I help?", "I am {feeling}. Can you cheer me up?", "Hello! I am a {job} and I am {feeling}.",
        "Should I learn {activity}?", "What do you think about {topic}?", "Can you recommend something to do in {country}?", "Tell me a joke about a {job}.",
        "Tell me a joke about a {animal}.", "Tell me something interesting about {topic}.", "Give me some advice about {activity}.", "Tell me a riddle about {thing}.",
        "I have {food}, {food2} and an hour. What can I cook?", "It is raining in {country}. What can I do with my children?", "Motivate me for {activity}.",
    ),
    "roleplay": (
        "You are {person}. Introduce yourself.", "Pretend that you are a {job} and explain {topic} to a customer.", "Imagine you are a {job} in {country}. What is your day like?",
        "You are an experienced {job}. Give advice to a young {job2}.", "Act as a tour guide in {country}.", "You are a {animal} who can talk. What do you think of {food}?",
        "As a {job}, how would you explain {topic} to a child?", "Imagine you could talk with {person}. What would you ask?",
        "Pretend to be {person} and talk about {topic}.", "You are a time traveler visiting {country}. Describe what you see.",
    ),
    "reason": (
        "{name} is taller than {name2}, and {name2} is taller than {name3}. Who is the tallest?", "If all {animal}s are animals, is every animal a {animal}?",
        "What happens if you leave {food} in the sun?", "Why might a {job} need {thing}?", "Which is heavier, a {animal} or an {animal2}? Explain.",
        "What would you take to {place}: {object} or {object2}? Explain why.", "Is it possible to go from {country} to {country2} by train?",
        "{name} has {object} and wants to give it to {name2}. What could {name} say?", "What comes first, learning or {activity}? Explain your view.",
    ),
}  # fmt: skip
_WEIGHTS = {"explain": 5, "how_to": 3, "story": 4, "list": 3, "facts": 4, "letter": 2, "chat": 2, "roleplay": 2}


def _fields(rng: random.Random) -> dict[str, str]:
    names, animals, foods = rng.sample(t.NAMES, 3), rng.sample(t.ANIMALS, 3), rng.sample(t.FOODS, 2)
    topics, things, jobs = rng.sample(_SUBJECTS, 2), rng.sample(t.THINGS, 2), rng.sample(t.JOBS, 2)
    countries, activities, objects = rng.sample(t.COUNTRIES, 2), rng.sample(t.EVERYDAY, 2), rng.sample(t.OBJECTS, 2)
    fields = {
        "name": names[0], "name2": names[1], "name3": names[2], "animal": animals[0], "animal2": animals[1], "animal3": animals[2],
        "food": foods[0], "food2": foods[1], "topic": topics[0], "topic2": topics[1], "thing": things[0], "thing2": things[1],
        "job": jobs[0], "job2": jobs[1], "country": countries[0], "country2": countries[1], "activity": activities[0],
        "activity2": activities[1], "object": objects[0], "object2": objects[1], "place": rng.choice(t.PLACES),
        "person": rng.choice(t.PEOPLE), "adj": rng.choice(t.ADJECTIVES), "adverb": rng.choice(t.ADVERBS), "style": rng.choice(t.STYLES),
        "length": rng.choice(t.LENGTHS), "word": rng.choice(t.WORD_PAIRS), "idiom": rng.choice(t.IDIOMS), "feeling": rng.choice(t.FEELINGS),
        "n": rng.choice(["three", "four", "five", "3", "5"]),
    }  # fmt: skip
    for key, template in zip(("sentence", "sentence2", "sentence3"), rng.sample(_SENTENCES, 3), strict=True):
        sentence = template.format(**fields)
        fields[key] = sentence[0].upper() + sentence[1:]
    fields["review"] = rng.choice(_REVIEWS).format(**fields)
    return fields


def text_prompt(rng: random.Random) -> tuple[str, str]:
    """The family and the text of one prompt."""
    families = list(TEMPLATES)
    family = rng.choices(families, weights=[_WEIGHTS.get(name, 1) for name in families])[0]
    text = rng.choice(TEMPLATES[family]).format(**_fields(rng))
    if rng.random() < 0.05:
        text = rng.choice([text.lower(), text.rstrip(".?"), f"Please {text[0].lower()}{text[1:]}"])
    return family, text
