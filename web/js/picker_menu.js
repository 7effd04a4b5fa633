// The menu of one region: name, pick, merge, hide. Closes with Escape or a click elsewhere.

import { element } from "./picker_elements.js";

let open = null;

export function closeMenu() {
  open?.remove();
  open = null;
}

/**
 * Show a menu at a place of the window.
 * @param {{name: string, rename: (name: string) => void, items: {text: string, run: () => void}[]}} content
 */
export function showMenu(content, place, returnFocus) {
  closeMenu();
  const input = element("input", { type: "text", value: content.name, "aria-label": "Name of the region" });
  const apply = (run) => () => {
    closeMenu();
    run();
    returnFocus?.focus({ preventScroll: true });
  };
  const rename = apply(() => content.rename(input.value));
  const buttons = content.items.map(({ text, run }) =>
    element("button", { type: "button", onclick: apply(run) }, text),
  );
  const named = element(
    "div",
    { className: "vidseg-menu-name" },
    input,
    element("button", { type: "button", onclick: rename }, "Name"),
  );
  open = element("div", { className: "vidseg-menu", role: "dialog", "aria-label": "Region" }, named, ...buttons);
  open.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && event.target === input) rename();
    if (event.key === "Escape") apply(() => {})();
    if (event.key === "ArrowDown" || event.key === "ArrowUp") moveFocus(event);
  });
  open.addEventListener("pointerdown", (event) => event.stopPropagation());
  open.addEventListener("contextmenu", (event) => event.stopPropagation());
  document.body.append(open);
  const box = open.getBoundingClientRect();
  open.style.left = `${Math.max(0, Math.min(place.x, window.innerWidth - box.width - 4))}px`;
  open.style.top = `${Math.max(0, Math.min(place.y, window.innerHeight - box.height - 4))}px`;
  input.focus({ preventScroll: true });
  input.select();
}

function moveFocus(event) {
  event.preventDefault();
  const stops = [...open.querySelectorAll("input, .vidseg-menu > button")];
  const step = event.key === "ArrowDown" ? 1 : -1;
  stops[(stops.indexOf(document.activeElement) + step + stops.length) % stops.length].focus();
}

window.addEventListener(
  "pointerdown",
  (event) => {
    if (open && !open.contains(event.target)) closeMenu();
  },
  true,
);
window.addEventListener(
  "wheel",
  (event) => {
    if (open && !open.contains(event.target)) closeMenu();
  },
  { capture: true, passive: true },
);
