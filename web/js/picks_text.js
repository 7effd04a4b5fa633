// The text of picks, as core/regions/points.py reads it: one line per point, "action frame x,y name".

const DIGITS = 4;
const LINE = /^(?:([A-Za-z-]+)\s+)?(\d+)\s+(\S+?)\s*,\s*(\S+)(?:\s+(.*))?$/;
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)$/;
export const ACTIONS = ["pick", "name", "hide"];

/** Return a name without line breaks and double spaces. */
export function cleanName(name) {
  return name.split(/\s+/).filter(Boolean).join(" ");
}

/** Return lines: points as {action, frame, x, y, name}, all others as {raw, wrong}; nothing gets lost. */
export function parseText(text) {
  const lines = text.split(/\r\n|\r|\n/);
  while (lines.length && !lines[lines.length - 1].trim()) lines.pop();
  return lines.map(parseLine);
}

function parseLine(raw) {
  const line = raw.trim();
  if (!line || line.startsWith("#")) return { raw, wrong: false };
  const match = LINE.exec(line);
  if (!match || !DECIMAL.test(match[3]) || !DECIMAL.test(match[4])) return { raw, wrong: true };
  const [action, x, y] = [(match[1] ?? "pick").toLowerCase(), Number(match[3]), Number(match[4])];
  if (!ACTIONS.includes(action) || x < 0 || x > 1 || y < 0 || y > 1) return { raw, wrong: true };
  return { action, frame: Number(match[2]), x, y, name: cleanName(match[5] ?? "") };
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
