"use strict";

// What the demos share: elements, controls, colours and numbers.
const Demo = {
  // Demo.element("p", { class: "said" }, "text", otherElement): an HTML element; functions become event listeners.
  element(name, attributes = {}, ...children) {
    return Demo.fill(document.createElement(name), attributes, children);
  },

  svg(name, attributes = {}, ...children) {
    return Demo.fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  },

  fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(key, value);
      else if (value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  },

  // A labelled list of choices; `options` are values, or [value, what is shown].
  choice(label, options, value, changed) {
    const list = Demo.element("select", { change: () => changed(list.value) });
    for (const option of options) {
      const [key, shown] = Array.isArray(option) ? option : [option, option];
      list.append(Demo.element("option", { value: key, selected: String(key) === String(value) && "" }, shown));
    }
    return Demo.element("label", {}, label, " ", list);
  },

  // Say something that a screen reader reads out, too; an unchanged sentence is not said again.
  say(box, text) {
    if (box.textContent !== text) box.textContent = text;
  },

  saying() {
    return Demo.element("p", { class: "said", role: "status", "aria-live": "polite" });
  },

  // Blue for positive and orange for negative values, which colour-blind readers can tell apart, too.
  signed(value, largest = 1) {
    const share = Math.min(Math.abs(value) / largest, 1);
    return `rgb(${value < 0 ? "213 94 0" : "0 114 178"} / ${share.toFixed(3)})`;
  },

  // A number with two decimals, and no minus before a zero.
  number(value) {
    return value.toFixed(2).replace("-0.00", "0.00");
  },

  // How long the reader's browser took for an answer.
  took(box, began) {
    const now = performance.now();
    box.textContent = `computed here in ${Math.round(now - began)} ms`;
    box.dataset.took = now - began;
    box.dataset.at = now;
  },

  table(caption, head, rows) {
    const cells = (name, row) => row.map((text, i) =>
      Demo.element(i === 0 || name === "th" ? "th" : "td", { scope: name === "th" ? "col" : i === 0 && "row" }, text));
    return Demo.element("table", {},
      Demo.element("caption", {}, caption),
      Demo.element("thead", {}, Demo.element("tr", {}, ...cells("th", head))),
      Demo.element("tbody", {}, ...rows.map((row) => Demo.element("tr", {}, ...cells("td", row)))));
  },

  // A table of buttons, one stop for the tab key, with the arrow keys moving inside. `cell(row, column)` gives what a
  // button holds, its background and what it is called; `chosen(row, column)` is called when one is pressed.
  grid(caption, rows, columns, cell, chosen) {
    const { element } = Demo;
    const buttons = rows.map((_, r) => columns.map((_, c) => {
      const { text, background, name } = cell(r, c);
      return element("button", { type: "button", tabindex: r || c ? -1 : 0, "aria-label": name, title: name,
        style: background && `background: ${background}`, click: () => choose(r, c), keydown: (event) => move(event, r, c) }, text);
    }));
    function focus(r, c) {
      buttons.flat().forEach((button) => button.setAttribute("tabindex", -1));
      buttons[r][c].setAttribute("tabindex", 0);
      buttons[r][c].focus();
    }
    function choose(r, c) {
      focus(r, c);
      buttons.flat().forEach((button) => button.classList.toggle("chosen", button === buttons[r][c]));
      chosen(r, c);
    }
    function move(event, r, c) {
      const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
      if ((!down && !right) || !buttons[r + down]?.[c + right]) return;
      event.preventDefault();
      focus(r + down, c + right);
    }
    const table = element("table", { class: "grid" },
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, element("td"), ...columns.map((word) => element("th", { scope: "col" }, word)))),
      element("tbody", {}, ...rows.map((name, r) => element("tr", {}, element("th", { scope: "row" }, name),
        ...buttons[r].map((button) => element("td", {}, button))))));
    return { table, buttons, choose };
  },

  // Run `work` for the last arguments only, if new ones come while it is busy.
  latest(work) {
    let busy = false, waiting = null;
    return async function call(...given) {
      waiting = given;
      if (busy) return;
      busy = true;
      while (waiting) {
        const now = waiting;
        waiting = null;
        await work(...now);
      }
      busy = false;
    };
  },

  argmax(values) {
    return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
  },

  // A seeded source of numbers between 0 and 1 (mulberry32).
  random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  },
};
