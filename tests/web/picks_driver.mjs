// Reads cases as JSON from standard input and prints what the picker makes of them, for test_picks_model.py.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${folder}/${file}`).href);
const { PicksModel } = await load("picks_model.js");
const { formatText, parseText } = await load("picks_text.js");

function answer({ text, regions, found, steps }) {
  const model = new PicksModel(() => {});
  model.setRegions(regions, found);
  model.text = text;
  const texts = [];
  for (const [method, ...values] of steps) {
    if (method === "pickAll") model.pickAll(new Map(values[0]));
    else model[method](...values);
    texts.push(model.text);
  }
  const groups = [...new Set(model.groups().values())];
  const undone = [];
  for (let number = 0; model.canUndo && number < 99; number++) {
    model.undo();
    undone.push(model.text);
  }
  return {
    formatted: formatText(parseText(text)),
    wrong: parseText(text).map((line) => line.wrong === true),
    groups,
    texts,
    undone,
  };
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));
