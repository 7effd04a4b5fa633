// The text of picks, as core/regions/points.py reads it: one line per point, "action frame x,y name".
// Lines, blanks, digits and names are those of core/regions/typed.py; tests/web/pick_lines.json is read by both.

const DIGITS = 4;
const BLANK = "[ \\t\\v\\f\\u00a0\\ufeff]";
const INK = "[^ \\t\\v\\f\\u00a0\\ufeff]";
const LINE = new RegExp(
  `^(?:([A-Za-z-]+)${BLANK}+)?([0-9]+)${BLANK}+((?:(?!,)${INK})+)${BLANK}*,${BLANK}*(${INK}+)(?:${BLANK}+(.*))?$`,
  "s",
);
const BLANKS = new RegExp(`${BLANK}+`);
const AROUND = new RegExp(`^${BLANK}+|${BLANK}+$`, "g");
const WHOLE = /^[0-9]{1,9}$/;
const FRACTION = /^(?=.{1,40}$)[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$/;
const NO_NAME = /[\u0000-\u0008\u000e-\u001f\u007f-\u009f\u2028\u2029\p{Cs}]/u;
const LONGEST_NAME = 200;
export const ACTIONS = ["pick", "name", "hide", "split"];

/** Return what a person typed as a name that the text can hold: one line, single spaces, not too long. */
export function cleanName(name) {
  const plain = joinWords(name.replace(/[\r\n]/g, " ")).replace(new RegExp(NO_NAME, "gu"), "");
  return joinWords([...plain].slice(0, LONGEST_NAME).join(""));
}

function joinWords(text) {
  return text.split(BLANKS).filter(Boolean).join(" ");
}

/** Return what is equal for equal names. */
export function foldName(name) {
  return name.toLowerCase();
}

/** Return lines: points as {action, frame, x, y, name}, all others as {raw, wrong}; nothing gets lost. */
export function parseText(text) {
  const lines = text.split(/\r\n|\r|\n/);
  while (lines.length && !strip(lines[lines.length - 1])) lines.pop();
  return lines.map(parseLine);
}

function parseLine(raw) {
  const line = strip(raw);
  if (!line || line.startsWith("#")) return { raw, wrong: false };
  const match = LINE.exec(line);
  if (!match || !WHOLE.test(match[2]) || !FRACTION.test(match[3]) || !FRACTION.test(match[4])) {
    return { raw, wrong: true };
  }
  const name = joinWords(match[5] ?? "");
  if (NO_NAME.test(name) || [...name].length > LONGEST_NAME) return { raw, wrong: true };
  const [action, x, y] = [(match[1] ?? "pick").toLowerCase(), Number(match[3]), Number(match[4])];
  if (!ACTIONS.includes(action) || x < 0 || x > 1 || y < 0 || y > 1) return { raw, wrong: true };
  return { action, frame: Number(match[2]), x, y, name };
}

function strip(text) {
  return text.replace(AROUND, "");
}

export function formatText(lines) {
  return lines.map((line) => ("raw" in line ? line.raw : formatPoint(line))).join("\n");
}

function formatPoint({ action, frame, x, y, name }) {
  const parts = [action === "pick" ? "" : action, String(frame), `${rounded(x)},${rounded(y)}`, name];
  return parts.filter(Boolean).join(" ");
}

/** Return a coordinate with the digits that the text keeps. */
export function rounded(value) {
  return Number(value.toFixed(DIGITS));
}
