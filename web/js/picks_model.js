// What is picked: the lines of text, the regions under their points, and what people can do with them.
// The rules are those of `resolved` in core/regions/points.py; tests compare the two.

import { cleanName, foldName, formatText, parseText, rounded } from "./picks_text.js";

export class PicksModel {
  #undo = [];

  /** @param {(text: string) => void} changed called after each change that a person makes */
  constructor(changed) {
    this.changed = changed;
    this.lines = [];
    this.regions = new Map(); // by label: {label, name, color, share, first, last, frame, x, y}
    this.owners = null; // label of each leaf, where regions are made of leaves
    this.found = new Map(); // by point: the leaf under it, or the label without leaves; null where there is none
    this.guesses = new Set(); // points of which only the region is known, not the leaf
  }

  /** Take over what the node found when it ran; ``same`` says that the labels are those of the run before. */
  setRegions(regions, found, same = false) {
    if (!same) this.found.clear();
    for (const [frame, x, y, part] of found) this.#learn({ frame, x, y }, part);
    this.setCut(regions, null);
  }

  /** Take over other regions of the same leaves. */
  setCut(regions, owners) {
    this.regions = new Map(regions.map((region) => [region.label, region]));
    this.owners = owners;
    for (const key of this.guesses) this.found.delete(key);
    this.guesses.clear();
  }

  get text() {
    return formatText(this.lines);
  }

  set text(text) {
    if (text !== this.text) this.lines = parseText(text);
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  undo() {
    if (!this.canUndo) return;
    this.lines = parseText(this.#undo.pop());
    this.changed(this.text);
  }

  /** Points whose region is not known before the next run. */
  unknownPoints() {
    return this.lines.filter((line) => "action" in line && !this.found.has(keyOf(line)));
  }

  /** Keep what lies under a point: a leaf, or a label without leaves. */
  remember(point, part) {
    this.#learn(point, this.regions.has(this.owners ? this.owners[part] : part) ? part : null);
  }

  #learn(point, part) {
    this.found.set(keyOf(point), part);
    this.guesses.delete(keyOf(point));
  }

  /** Return the label of the region under a point; null or undefined where there is none, or it is not known. */
  #labelOf(point) {
    const part = this.found.get(keyOf(point));
    const label = this.owners && typeof part === "number" ? this.owners[part] : part;
    return this.regions.has(label) ? label : null;
  }

  /** Leaves whose regions are split in two, in order. */
  splitLeaves() {
    const parts = this.lines.filter((line) => line.action === "split").map((line) => this.found.get(keyOf(line)));
    return parts.filter((part) => typeof part === "number");
  }

  /** Return the group of each label: {leader, labels, name, named, picked, hidden}. */
  groups() {
    const names = new Map();
    const actions = new Map();
    for (const line of this.#resolvedLines(names)) actions.set(line.label, line.point.action);
    const members = new Map();
    for (const [label, name] of names) members.set(foldName(name), [...(members.get(foldName(name)) ?? []), label]);
    const groups = new Map();
    for (const region of this.regions.values()) {
      const labels = names.has(region.label) ? members.get(foldName(names.get(region.label))) : [region.label];
      const leader = Math.min(...labels);
      const group = groups.get(leader) ?? {
        leader,
        labels,
        named: names.has(region.label),
        name: names.get(labels[0]) ?? region.name,
        picked: labels.some((label) => actions.get(label) === "pick"),
        hidden: labels.every((label) => actions.get(label) === "hide"),
      };
      groups.set(region.label, group);
      groups.set(leader, group);
    }
    return groups;
  }

  /** Return {point, label} of each line that is resolved, and fill ``names`` with the first name of each label. */
  #resolvedLines(names = new Map()) {
    const resolved = [];
    for (const point of this.lines) {
      const label = "action" in point && point.action !== "split" ? this.#labelOf(point) : null;
      if (label === null) continue;
      const first = names.get(label);
      if (first !== undefined && point.name && foldName(first) !== foldName(point.name)) continue;
      if (first === undefined && point.name) names.set(label, point.name);
      resolved.push({ point, label });
    }
    return resolved;
  }

  #linesOf(labels) {
    return this.#resolvedLines().filter((line) => labels.includes(line.label));
  }

  #edit(change) {
    const before = this.text;
    change();
    this.lines = this.lines.filter((line) => line.action !== "name" || line.name);
    if (this.text === before) return;
    this.#undo.push(before);
    this.changed(this.text);
  }

  #add(action, label, name = "", point = null) {
    const { frame, x, y, leaf } = point ?? this.regions.get(label);
    if (frame === null) return;
    const line = { action, frame, x: rounded(x), y: rounded(y), name };
    this.lines.push(line);
    this.#learn(line, leaf ?? this.regions.get(label).leaf ?? label);
    if (this.owners && !point) this.guesses.add(keyOf(line));
  }

  toggle(label, point) {
    const group = this.groups().get(label);
    if (group.picked) this.unpick(label);
    else this.pickAll(new Map([[label, point]]));
  }

  /** Pick several regions at once; ``points`` holds a point, or nothing, by label. */
  pickAll(points) {
    this.#edit(() => {
      for (const [label, point] of points) {
        const group = this.groups().get(label);
        if (!group.picked) this.#pick(group, label, point);
      }
    });
  }

  #pick(group, label, point) {
    const lines = this.#linesOf(group.labels);
    for (const { point: line } of lines) if (line.action === "hide") line.action = "name";
    const own = lines.find((line) => line.label === label) ?? lines[0];
    if (!own) this.#add("pick", label, "", point);
    for (const line of lines) if (line.label === own.label) line.point.action = "pick";
  }

  unpick(label) {
    this.#setAction(label, "pick", "name");
  }

  show(label) {
    this.#setAction(label, "hide", "name");
  }

  #setAction(label, from, to) {
    const { labels } = this.groups().get(label);
    this.#edit(() => {
      for (const { point } of this.#linesOf(labels)) if (point.action === from) point.action = to;
    });
  }

  hide(label, point) {
    const { labels } = this.groups().get(label);
    this.#edit(() => {
      const lines = this.#linesOf(labels);
      for (const line of lines) line.point.action = "hide";
      if (!lines.length) this.#add("hide", label, "", point);
    });
  }

  /** Name a region; the name of another region merges the two, an empty name takes the name away. */
  rename(label, newName, point) {
    const groups = this.groups();
    const group = groups.get(label);
    const name = cleanName(newName);
    if (name === group.name) return;
    this.#edit(() => {
      const lines = this.#linesOf(group.labels);
      for (const line of lines) line.point.name = name;
      if (!name) return;
      if (!lines.length) this.#add("name", label, name, point);
      for (const other of new Set(groups.values())) {
        const same = !other.named && other !== group && foldName(other.name) === foldName(name);
        if (same) this.#give(other, name);
      }
    });
  }

  /** Make one region of the region with ``label`` and others. */
  merge(label, others) {
    const groups = this.groups();
    const members = new Set([label, ...others].map((member) => groups.get(member)));
    const named = [...members].find((group) => group.named) ?? groups.get(label);
    this.#edit(() => {
      for (const group of members) this.#give(group, named.name);
    });
  }

  #give(group, name) {
    const lines = this.#linesOf(group.labels);
    for (const { point } of lines) {
      point.name = name;
      if (point.action === "hide") point.action = "name";
    }
    for (const label of group.labels) {
      if (!lines.some((line) => line.label === label)) this.#add("name", label, name);
    }
  }

  /** Make two regions of one, where its tree does. */
  cut(label, point) {
    this.#edit(() => this.#add("split", label, "", point));
  }

  /** Take the common name from the parts of a merged region. */
  split(label) {
    const { labels } = this.groups().get(label);
    this.#edit(() => {
      for (const { point } of this.#linesOf(labels)) point.name = "";
    });
  }

  clear() {
    this.#edit(() => {
      this.lines = this.lines.filter((line) => "raw" in line && !line.wrong);
    });
  }
}

function keyOf({ frame, x, y }) {
  return `${frame} ${x} ${y}`;
}
