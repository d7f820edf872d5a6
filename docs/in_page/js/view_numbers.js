// Numbers as views get them: six significant digits.

export const short = (value) => Number(value.toPrecision(6));
export const shorts = (values) => Array.from(values, short);
