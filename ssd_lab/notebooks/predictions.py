"""What notebooks let readers predict, `notebook-prediction`, and the answer that comes back."""

from __future__ import annotations

PREDICTIONS = {
    "00-1": (
        "At most five: four guesses and one token that the target adds. At least one: even when the first guess is "
        "wrong, the target has written the right token in its place. A round is never worse than a plain pass, apart "
        "from the time that guessing takes."
    ),
    "01-1": (
        "Tokens/round is the figure to remember: how many tokens a text gets from one pass of the target. Without a "
        "draft it is 1, so with 3 tokens/round a text needs only a third of the passes."
    ),
    "01-2": (
        "Given that all the guesses before it were right, about as often: one guess is about as hard as another. "
        "Without that condition, less often, because a guess counts only if all before it were right. So each further "
        "guess is worth less than the one before, and k should not be as large as possible."
    ),
    "02-1": "As often as the target says it: 25 times in a hundred, whatever the draft wanted.",
    "02-2": (
        "All three go wrong. The third is the most common mistake in practice: a greedy guess is a fine guess, but "
        "then its q is 1 for that token, and the rule must be given that q."
    ),
    "03-1": (
        "The second guess catches most of what the first one misses, and every further one much less. Whether a node "
        "deserves a sibling or a child is now arithmetic: a node is useful only if it and all its "
        "ancestors are right, so its value is the product of the shares along its path."
    ),
    "03-2": (
        "No. Drawn children give the target's distribution; the likeliest ones do not, for they were certain and not "
        "drawn from q. Certain guesses need their own, simpler rule: draw the target's token, and go down if a child "
        "guessed it."
    ),
    "04-1": (
        "The accepted length can be 0 to 4, so there are 5 x 2 = 10 outcomes, each with four tokens: 40 tokens for one "
        "round, of which at most four are ever used. It decodes all ten branches side by side, so that costs four "
        "steps, not forty."
    ),
    "05-1": (
        "Four, all of them. With one acceptance rate a the chance of a length falls from one to the next, but the last "
        "one jumps: after the last guess there is nothing left to reject."
    ),
    "05-2": "The bonus token is far easier: nothing has refuted the draft's first choice there.",
    "05-3": (
        "A poor draft is stopped early, so the branches belong at small lengths; a good one is often accepted whole, "
        "and the last length takes most of them."
    ),
    "06-1": (
        "At C = 1 the residual lies wholly on owl and fox: every rejection is a miss, however good the draft. At "
        "C = 0.5 most of it has moved onto the two prepared tokens."
    ),
    "06-2": (
        "Not the target's distribution. Tested with the distribution from which it was drawn, every C gives it; tested "
        "with the other one, none but C = 1 does. The engine records the bent distribution with each guess."
    ),
    "06-3": (
        "With an expensive one, and in a batch. Where misses are cheap, leave C at 1; the dearer a miss, the lower the "
        "best C, and even then the gain on this pair is one percent or so: know your own curve before you bend."
    ),
    "07-1": (
        "The draft, a whole model. The head has one layer and the layer that joins three features of the target; the "
        "embedding table and the output head are the target's."
    ),
    "07-2": (
        "Hardly at all: in training the head was unrolled on its own states, so it has learned to live with them. The "
        "draft model does not care how many guesses came before, for it reads tokens, and here those are the target's."
    ),
    "08-1": (
        "It grows with the length: small models begin to repeat themselves when they go on past the end of their "
        "answer, and what repeats is found in the text."
    ),
    "08-2": (
        "The greedy check does not notice: at temperature 0 the reported distribution is never used. The statistics "
        "do: a wrong one shows in sampling, and only to a test, for the text reads well either way."
    ),
    "09-1": (
        "At most the bandwidth over the bytes of the weights. Eight tokens take as long as one: up to some 300 rows "
        "the reading of the weights hides all arithmetic, and that is where speculation lives. (Attention and small "
        "operations come on top; a whole step reaches 60 to 80 % of the bandwidth.)"
    ),
    "09-2": (
        "The draft's: six steps (15.2 ms) take longer than the verification they hide behind. In the asynchronous run "
        "the target waits. A k of 11.45 / 2.54, about four, would balance the two."
    ),
    "10-1": "Only the text: how often guesses are accepted. One number for each set of prompts should explain both.",
    "10-2": "Look at the interval of their ratio: if it contains 1, the difference may be noise.",
    "11-1": (
        "Eight ask and four have a place, so four wait. As soon as a text ends, one that waits takes its place. "
        "(Before the first pass nearly all of them wait; the chart may begin there.)"
    ),
    "11-2": "They are equal except for what came too late: tokens that were accepted after the end of a text.",
}
