// The closed forms of arXiv 2603.03251 as in simulate/closed_form.py; a test compares the two. Unit: one verification.

export function expectedTokens(acceptance, k) {
  let sum = 0;
  for (let i = 0; i <= k; i += 1) sum += acceptance ** i;
  return sum;
}

export function speedupSync(tokens, draftTime) {
  return tokens / (1 + draftTime);
}

export function speedupAsync({ batch, hitRate, tokensHit, tokensMiss, draftTime, fallbackTime }) {
  const allHit = hitRate ** batch;
  const tokens = hitRate * tokensHit + (1 - hitRate) * tokensMiss;
  return tokens / (allHit * Math.max(1, draftTime) + (1 - allHit) * (1 + fallbackTime));
}

// From the explorer's settings (milliseconds) to times over one verification. The tree's branches are shared out among
// the draft GPUs; the chain of a just-in-time fallback is one sequence and stays on one.
export function explorerSpeeds(settings) {
  const { verify_ms: verify, draft_step_ms: step, branch_ms: branch, k, acceptance, hit_rate: hitRate, batch, draft_gpus: gpus, fan_out: width, fallback } = settings;
  const branches = Math.ceil((batch * width * (k + 1)) / gpus);
  const draftTime = (k * (step + branch * branches)) / verify;
  const chainTime = (k * (step + branch * batch)) / verify;
  const fast = fallback === "fast";
  const tokens = expectedTokens(acceptance, k);
  return {
    draftTime, chainTime, tokens,
    sync: speedupSync(tokens, chainTime),
    async: speedupAsync({
      batch, hitRate, tokensHit: tokens, tokensMiss: fast ? expectedTokens(settings.fast_acceptance, k) : tokens,
      draftTime, fallbackTime: fast ? 0 : chainTime,
    }),
  };
}
