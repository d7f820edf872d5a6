"""Two hints for each exercise: the first says where to look, the second how to begin."""

from __future__ import annotations

HINTS: dict[str, tuple[str, str]] = {
    "00-1": ("Who writes a token in every round, whatever was guessed?", "Two guesses, and one from the target."),
    "00-2": (
        "Who decides which token stays?",
        "The text is the target's; what differs is how often it is asked.",
    ),
    "01-1": ("Not only guesses enter the text.", "Four guesses, and the target's own token after them."),
    "01-2": ("Which of the three has seconds in it?", "A faster machine makes the same guesses, only sooner."),
    "01-3": (
        "Two loops: over trace.rounds, and over the sequences of each.",
        "Add num_accepted + 1 for every sequence of every round; divide by how many there were.",
    ),
    "02-1": ("It is the overlap of the two distributions.", "Add min(p, q) over the three tokens."),
    "02-2": (
        "The recovery token is drawn from the residual.",
        "max(p - q, 0) is 0.2, 0.2 and 0; scale it to sum to one.",
    ),
    "02-3": ("Add the powers of 0.8, from the 0th to the 4th.", "1 + 0.8 + 0.64 + ...; the 1 is the target's token."),
    "02-4": (
        "Keep the token if u is below p/q of it; else draw from the residual with v.",
        "Walk through the residual, taking each weight from v times its sum, until that is below zero.",
    ),
    "03-1": ("Count the nodes level by level.", "4, then two for each of those, then one for each of those."),
    "03-2": (
        "Two shapes: a child of the first, or its sibling.",
        "A chain accepts 0.6 + 0.6 x 0.6; two siblings 0.6 + 0.2.",
    ),
    "03-3": (
        "After the rejection neither p nor q is what it was.",
        "p becomes max(p - q, 0), scaled; q loses the third token, scaled. Then min(1, p/q) of the second.",
    ),
    "03-4": ("Were those nodes drawn from q, or chosen?", "What is chosen is certain: its q is 1."),
    "04-1": ("How many accepted lengths are there at k = 6?", "0 to 6, with three candidates at each."),
    "04-2": (
        "What does a round last after a hit, and after a miss?",
        "10 ms after a hit, 16 ms after a miss; weigh them by 0.8 and 0.2.",
    ),
    "04-3": ("The round is short only if all four hit.", "That happens with 0.8 to the power 4."),
    "04-4": ("Whose prepared tokens are still good?", "Those that hit have theirs and only wait."),
    "05-1": ("All four guesses must be kept.", "0.8 to the power 4, with no rejection among them."),
    "05-2": (
        "The theorem's ratio is a power of the acceptance rate, 1 / (1 + r).",
        "With r = 1 it is the square root of 0.64.",
    ),
    "05-3": ("A power law: four candidates are F = 4.", "0.4 times 4 to the power -0.5."),
    "05-4": (
        "Begin with zeros, and give one branch at a time to where it gains most.",
        "The gain is w (h(F + 1) - h(F)), with h(0) = 0.",
    ),
    "06-1": ("Only the likeliest token is scaled down; then all are scaled to one.", "0.25 over 0.25 + 0.3 + 0.2."),
    "06-2": ("It is the overlap of p with the bent distribution.", "Add min(p, q_C) over the three tokens."),
    "06-3": ("At temperature 0 the whole probability is on one token.", "A factor on the only token is scaled away."),
    "06-4": ("From what is the bonus token drawn?", "From p itself; C bends only q."),
    "07-1": ("It joins three features of the target.", "Three times the hidden size."),
    "07-2": ("What goes into a layer came out of the one before.", "Layers are counted from 0 here."),
    "07-3": ("Has the target read the first guess yet?", "What did training unroll?"),
    "07-4": ("The head cannot name it, so q is 0 there.", "Then it lies in the residual: who draws from that?"),
    "08-1": ("What does the target do in every round?", "Without guesses each round is an autoregressive step."),
    "08-2": ("What is the q of a certain guess?", "min(1, p/q) with q = 1."),
    "08-3": (
        "Look for the last two tokens earlier in context.token_ids, and guess what followed them.",
        "Search from the end backwards; if the pair is nowhere, look for the last token alone.",
    ),
    "09-1": ("Every weight is read once.", "3 billion times two bytes, over 400 billion bytes a second."),
    "09-2": ("The whole tree must be done when the verification ends.", "How many whole steps of 3 ms are in 20 ms?"),
    "09-3": ("Synchronous lasts 1 + T; what does a hit round last?", "max(1, T) is 1: the draft hides completely."),
    "09-4": ("All eight must hit.", "0.9 to the power 8."),
    "10-1": ("How long is a round?", "11.45 + 6 x 2.54 ms, for 4.3 tokens."),
    "10-2": (
        "Weigh the length after a hit and after a miss.",
        "A hit lasts as long as the tree, 6 x 2.54 ms; a miss 11.45 ms and a new draft of 6 x 2.54 ms.",
    ),
    "10-3": (
        "What else may have changed since yesterday?",
        "Separate runs leave out what the machine did between.",
    ),
    "11-1": ("What does a round give to a text?", "1,000 + 400, and 20 of those are in no text."),
    "11-2": ("How many tokens does a draft add to a round, and who adds one more?", "600 / 250, and the target's own."),
    "11-3": ("What do the twelve wait for?", "Is it room for their keys and values?"),
}
