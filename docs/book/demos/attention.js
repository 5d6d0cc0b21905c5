"use strict";

// Patterns of every head of the course model for the reader's own words, and what it says next.
Demo.attention = (() => {
  const { network, svg, element } = Demo;
  const shown = {}, state = { layer: 1, head: 3, query: -1 };

  // One head's pattern as an SVG: a row for each word that looks, a column for each word that is looked at.
  function picture(layer, head, labels) {
    const n = state.words.length, edge = labels ? 6.2 * Math.max(...state.words.map((word) => word.length)) + 8 : 0;
    const side = labels ? 17 : 100 / n, cells = [];
    for (let q = 0; q < n; q++) {
      state.result.pattern(layer, head, q).slice(0, q + 1).forEach((weight, k) => cells.push(svg("rect", {
        x: edge + k * side, y: edge + q * side, width: side, height: side, fill: Demo.signed(weight), class: labels ? "cell" : "",
        click: labels && (() => look(q)),
      }, ...(labels ? [svg("title", {}, `${state.words[q]} looks at ${state.words[k]}: ${weight.toFixed(2)}`)] : []))));
    }
    const size = edge + n * side;
    const name = `Attention of head ${layer}.${head}; the numbers are in the table below`;
    const box = svg("svg", { viewBox: `0 0 ${size} ${size}`, role: labels && "img", "aria-label": labels && name, "aria-hidden": !labels && "true" }, ...cells);
    if (!labels) return box;
    state.words.forEach((word, i) => {
      const bold = i === state.query ? "bold" : "normal";
      box.append(svg("text", { x: edge - 4, y: edge + i * side + 13, "text-anchor": "end", "font-weight": bold }, word),
        svg("text", { transform: `translate(${edge + i * side + 12} ${edge - 4}) rotate(-90)` }, word));
    });
    box.append(svg("rect", { x: edge, y: edge + state.query * side, width: (state.query + 1) * side, height: side, class: "row" }));
    box.style.maxWidth = `${size}px`;
    return box;
  }

  function overview() {
    const heads = [];
    for (let layer = 0; layer < network.N_LAYERS; layer++) {
      for (let head = 0; head < network.N_HEADS; head++) {
        const on = layer === state.layer && head === state.head;
        heads.push(element("button", { type: "button", "aria-pressed": String(on), click: () => pick(layer, head) },
          picture(layer, head, false), `${layer}.${head}`));
      }
    }
    return heads;
  }

  function pick(layer, head) {
    Object.assign(state, { layer, head });
    draw();
    shown.overview.children[layer * network.N_HEADS + head].focus();
  }

  function look(query) {
    state.query = query;
    draw();
  }

  function draw() {
    const { layer, head, query, words, result } = state;
    shown.overview.replaceChildren(...overview());
    shown.pattern.replaceChildren(picture(layer, head, true));
    shown.from.replaceChildren(Demo.choice("looking from", words.map((word, i) => [i, `${i} ${word}`]), query, (i) => look(Number(i))));
    const seen = Array.from(result.pattern(layer, head, query)).map((weight, i) => [i, weight]).slice(0, query + 1);
    const most = seen.sort((a, b) => b[1] - a[1]).slice(0, 5);
    shown.weights.replaceChildren(Demo.table(`Head ${layer}.${head} at ${query} “${words[query]}” looks at`, ["word", "weight"],
      most.map(([i, weight]) => [`${i} ${words[i]}`, weight.toFixed(2)])));
    const next = network.top(result.logits(0, network.PLACES - 1, query));
    shown.next.replaceChildren(Demo.table(`The model says behind “${words[query]}”`, ["next word", "probability"],
      next.map(([word, p]) => [word, p.toFixed(2)])));
  }

  const answer = Demo.latest(async (text) => {
    const began = performance.now(), encoded = network.encode(text);
    state.result = await network.run([encoded.ids]);
    state.words = encoded.words;
    state.query = encoded.words.length - 1;
    draw();
    const best = network.top(state.result.logits(0, network.PLACES - 1, state.query), 1);
    Demo.say(shown.said, `${network.complaint(encoded)}Next word: ${network.listed(best)}.`);
    Demo.took(shown.step, began);
  });

  async function open(box) {
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), overview: element("div", { class: "heads", role: "group", "aria-label": "Heads, by layer and number" }),
      pattern: element("div", { class: "wide" }), from: element("div"), weights: element("div"), next: element("div") });
    const prompt = network.prompt("prompt", "When Mary and John went to the shop, John gave a book to", answer, [
      "When Mary and John went to the shop, John gave a book to", "The Golden Bridge is located in",
      "river pen seven garden blue river pen seven garden", "Hannah said: \"Petra leaves a restaurant and the"]);
    box.append(element("div", { class: "controls" }, ...prompt.nodes), shown.said, shown.step,
      element("div", { class: "pictures" }, shown.overview, element("div", { class: "large" }, shown.from, shown.pattern)),
      element("div", { class: "pictures" }, shown.weights, shown.next));
    await network.first(shown.said, async () => {
      await network.load();
      await answer(prompt.field.value);
    });
  }

  return { open, state };
})();
