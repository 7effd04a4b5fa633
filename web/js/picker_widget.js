// The picker: frame slider, picture, status line, buttons and list around one model.

import { cutRegions, groupPixels } from "./picker_cut.js";
import { element, percent } from "./picker_elements.js";
import { pixelAt, pixelCounts, PickerFrames } from "./picker_frames.js";
import { PickerList } from "./picker_list.js";
import { closeMenu, showMenu } from "./picker_menu.js";
import { PickerPicture } from "./picker_picture.js";
import { PicksModel } from "./picks_model.js";

export const MIN_HEIGHT = 420;
const FIRST_RUN = "Run the workflow once: the frames appear here, and regions can be clicked.";

export class PickerWidget {
  #frames = null;
  #frame = null;
  #problems = [];
  #ranText = null;
  #wanted = 0; // index of the frame to show
  #content = null; // what the node sent when it ran
  #number = 0; // of regions; 0 takes them as they came
  #splits = ""; // leaves whose regions are split, as they were cut last
  linked = false; // the text comes from another node

  /**
   * @param {(file: string) => string} addressOf returns the address of a file of the node
   * @param {(text: string) => void} write stores the text of the picks
   */
  constructor(addressOf, write) {
    this.addressOf = addressOf;
    this.model = new PicksModel((text) => {
      write(text);
      this.#resolveUnknown();
      this.refresh();
    });
    const actions = {
      toggle: (label, point) => this.model.toggle(label, point),
      pickAll: (points) => this.model.pickAll(points),
      rename: (label, name) => this.model.rename(label, name),
      hover: (label) => this.#hover(label),
    };
    this.picture = new PickerPicture({ ...actions, menu: (label, point, event) => this.#menu(label, point, event) });
    this.list = new PickerList({ ...actions, menu: (label, button) => this.#menuAt(label, button) });
    this.#build();
    this.refresh();
  }

  #build() {
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 0,
      value: 0,
      "aria-label": "Frame",
      className: "vidseg-slider",
    });
    this.slider.addEventListener("input", () => this.#showFrame(Number(this.slider.value)));
    this.number = element("output", { className: "vidseg-number" });
    this.status = element("div", { className: "vidseg-status" });
    this.notes = element("div", { className: "vidseg-notes", role: "status", "aria-live": "polite" });
    this.undo = element("button", { type: "button", onclick: () => this.model.undo() }, "Undo");
    this.clear = element("button", { type: "button", onclick: () => this.model.clear() }, "Clear");
    const bar = element("div", { className: "vidseg-bar" }, this.slider, this.number, this.undo, this.clear);
    this.root = element(
      "div",
      { className: "vidseg-picker" },
      bar,
      this.picture.canvas,
      this.status,
      this.list.root,
      this.notes,
    );
    for (const kind of ["keydown", "keyup"]) {
      this.root.addEventListener(kind, (event) => {
        if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); // keys of the graph
      });
    }
    this.root.addEventListener("pointerdown", (event) => event.button === 0 && event.stopPropagation());
  }

  /** Take over what the node sent when it ran. */
  async load(content) {
    this.#ranText = content.text;
    this.#problems = content.problems;
    this.#content = content;
    this.model.setRegions([], content.found, content.stem === this.#frames?.stem);
    this.#cut();
    const number = this.#frame?.number;
    if (content.stem !== this.#frames?.stem) {
      this.#frames = new PickerFrames(this.addressOf, content);
      this.#frame = null;
    }
    this.slider.max = content.frames.length - 1;
    const last = content.frames.findLastIndex((candidate) => candidate <= (number ?? 0));
    await this.#showFrame(Math.max(0, last));
  }

  /** Cut another number of regions from what the node sent; 0 takes them as they came. */
  async setNumber(number) {
    if (number === this.#number) return;
    this.#number = number;
    if (!this.#content) return;
    this.#cut();
    await this.#resolveUnknown();
    this.refresh();
  }

  /** Make regions of leaves: as many as asked for, with those split that the text says. */
  #cut() {
    const splits = this.model.splitLeaves();
    const { regions, owners } = cutRegions(this.#content, this.#number, splits);
    this.#splits = splits.join();
    this.model.setCut(regions, owners);
    if (this.#frame) this.#group(this.#frame);
  }

  /** Give the pixels of a frame the labels of their regions. */
  #group(frame) {
    frame.labels = groupPixels(frame.pixels, this.model.owners);
    this.counts = pixelCounts(frame);
    return frame;
  }

  setText(text) {
    this.model.text = text;
    this.#resolveUnknown();
    this.refresh();
  }

  async #showFrame(index) {
    this.#wanted = index;
    this.slider.value = index;
    const number = this.#frames.numbers[index];
    this.number.value = `${number} / ${this.#frames.numFrames - 1}`;
    try {
      const frame = await this.#frames.load(number);
      if (this.#wanted !== index) return; // the slider has moved on
      this.#frame = this.#group(frame);
      await this.#resolveUnknown();
      this.refresh();
    } catch (error) {
      this.#frame = null;
      this.notes.textContent = `The frame is not there any more: run again. (${error.message})`;
    }
  }

  /** Look up the regions under points that somebody wrote by hand, on the frames that can be shown. */
  async #resolveUnknown() {
    const frames = this.#frames;
    for (const point of frames ? this.model.unknownPoints() : []) {
      if (!frames.numbers.includes(point.frame)) continue;
      const frame = await frames.load(point.frame).catch(() => null);
      if (frames !== this.#frames) return; // the node ran again, or was removed
      if (!frame) continue; // its file is gone: found by the next run, as the notes say
      this.model.remember(point, frame.pixels[pixelAt(frame, point.x, point.y)]);
      this.refresh();
    }
  }

  refresh() {
    if (this.#content && this.#splits !== this.model.splitLeaves().join()) this.#cut();
    this.undo.disabled = !this.model.canUndo;
    this.clear.disabled = !this.model.lines.some((line) => "action" in line);
    this.root.classList.toggle("vidseg-empty", !this.#frame);
    if (!this.#frame) {
      this.status.textContent = FIRST_RUN;
      return;
    }
    this.groups = this.model.groups();
    const groups = [...new Set(this.groups.values())];
    this.picture.show(this.#frame, this.groups, this.model.regions);
    this.picture.canvas.setAttribute("aria-label", `Frame ${this.#frame.number} with its regions`);
    this.list.show(groups, this.model.regions, this.counts);
    this.notes.replaceChildren(...this.#notes().map((note) => element("div", {}, note)));
    this.#hover(null);
  }

  #notes() {
    if (this.linked) return ["The picks come from another node: what you change here is not used."];
    const wrong = this.model.lines.filter((line) => line.wrong).map((line) => `Not understood: ${line.raw.trim()}`);
    const stale = this.model.text !== this.#ranText;
    const unknown = this.model
      .unknownPoints()
      .map((point) => `Found when you run: frame ${point.frame}, ${point.name || "no name"}`);
    return [
      ...wrong,
      ...(stale ? ["Run to update the masks.", ...unknown] : this.#problems.map((problem) => `Not found: ${problem}`)),
    ];
  }

  #hover(label) {
    const group = label === null ? null : this.groups?.get(label);
    this.picture.hover(group ? group.leader : null);
    this.list.hover(group ? group.leader : null);
    this.status.textContent = group ? this.#describe(group) : this.#summary();
  }

  #describe(group) {
    const pixels = group.labels.reduce((sum, label) => sum + this.counts[label], 0);
    const marks = [group.picked ? "picked" : "", group.hidden ? "hidden" : ""].filter(Boolean);
    const area = `${percent(pixels / this.#frame.labels.length)} of this frame`;
    return [group.name, `id ${group.labels.join(", ")}`, area, ...marks].join(" \u00b7 ");
  }

  #summary() {
    const picked = [...new Set(this.groups.values())].filter((group) => group.picked).map((group) => group.name);
    return picked.length
      ? `Picked: ${picked.join(", ")}`
      : "Click regions to pick them, drag over several, right-click for more.";
  }

  #menuAt(label, button) {
    const box = button.getBoundingClientRect();
    this.#menu(label, null, { clientX: box.left, clientY: box.bottom }, button);
  }

  #menu(label, point, { clientX, clientY }, returnFocus = null) {
    const { model } = this;
    const group = this.groups.get(label);
    const others = [...new Set(this.groups.values())].filter((other) => other.picked && other !== group);
    const items = [{ text: group.picked ? "Unpick" : "Pick", run: () => model.toggle(label, point) }];
    if (others.length) {
      const names = others.map((other) => other.name).join(", ");
      items.push({
        text: `Merge with ${names}`,
        run: () =>
          model.merge(
            label,
            others.map((other) => other.leader),
          ),
      });
    }
    if (group.labels.length > 1) items.push({ text: "Split again", run: () => model.split(label) });
    else if (model.owners) items.push({ text: "Split in two", run: () => model.cut(label, point) });
    if (group.hidden) items.push({ text: "Show", run: () => model.show(label) });
    else items.push({ text: "Hide", run: () => model.hide(label, point) });
    showMenu(
      { name: group.name, rename: (name) => model.rename(label, name, point), items },
      { x: clientX, y: clientY },
      returnFocus,
    );
  }

  remove() {
    closeMenu();
    this.#frames = null;
  }
}
