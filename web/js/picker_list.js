// The list of regions: pick, color, name, share of the frame, first and last frame; all of it by keyboard too.

import { element, percent } from "./picker_elements.js";

export class PickerList {
  #rows = new Map(); // by leader

  /** @param {object} actions toggle(label), rename(label, name), menu(label, button), hover(label or null) */
  constructor(actions) {
    this.actions = actions;
    this.root = element("div", {
      className: "vidseg-list",
      role: "list",
      "aria-label": "Regions",
      "data-capture-wheel": "true",
    });
    this.root.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });
  }

  /**
   * Show a row for each region, the largest first.
   * @param {object[]} groups the regions after merging
   * @param {Map} regions what is known of each label
   * @param {Uint32Array} counts pixels of each label in the shown frame
   */
  show(groups, regions, counts) {
    const total = counts.reduce((sum, count) => sum + count, 0) || 1;
    const rows = groups.map((group) => summary(group, regions, counts, total)).filter((row) => row.first !== null);
    rows.sort((one, other) => other.share - one.share || one.group.leader - other.group.leader);
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.#rows.clear();
    this.root.replaceChildren(...rows.map((row) => this.#row(row)));
    if (focused) this.root.querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true });
  }

  hover(leader) {
    for (const [label, row] of this.#rows) row.classList.toggle("vidseg-hovered", label === leader);
  }

  #row({ group, color, now, first, last }) {
    const { leader, name, picked, hidden } = group;
    const key = (part) => ({ "data-key": `${part}-${leader}` });
    const check = element("input", { type: "checkbox", checked: picked, "aria-label": `Pick ${name}`, ...key("pick") });
    check.addEventListener("change", () => this.actions.toggle(leader));
    const input = element("input", {
      type: "text",
      value: name,
      "aria-label": `Name of region ${leader}`,
      ...key("name"),
    });
    input.addEventListener("change", () => this.actions.rename(leader, input.value));
    const more = element(
      "button",
      { type: "button", title: "Merge, hide, ...", "aria-label": `More for ${name}`, ...key("more") },
      "\u22ef",
    );
    more.addEventListener("click", () => this.actions.menu(leader, more));
    const row = element(
      "div",
      { className: "vidseg-row", role: "listitem" },
      check,
      element("span", {
        className: "vidseg-swatch",
        style: `background:${color}`,
        title: `id ${group.labels.join(", ")}`,
      }),
      input,
      element("span", { title: "Share of this frame" }, percent(now)),
      element("span", { title: "First and last frame that show it" }, `${first}\u2013${last}`),
      more,
    );
    row.classList.toggle("vidseg-picked", picked);
    row.classList.toggle("vidseg-hidden", hidden);
    row.addEventListener("pointerenter", () => this.actions.hover(leader));
    row.addEventListener("pointerleave", () => this.actions.hover(null));
    this.#rows.set(leader, row);
    return row;
  }
}

/** Return what the list says of a group. */
function summary(group, regions, counts, total) {
  const parts = group.labels.map((label) => regions.get(label)).filter((part) => part.first !== null);
  return {
    group,
    color: regions.get(group.leader).color,
    now: group.labels.reduce((sum, label) => sum + counts[label], 0) / total,
    share: parts.reduce((sum, part) => sum + part.share, 0),
    first: parts.length ? Math.min(...parts.map((part) => part.first)) : null,
    last: parts.length ? Math.max(...parts.map((part) => part.last)) : null,
  };
}
