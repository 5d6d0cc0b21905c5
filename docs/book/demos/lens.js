"use strict";

// The logit lens: what the final norm and the unembedding make of the residual stream between the layers.
Demo.lens = (() => {
  const { network, element } = Demo;
  const PLACES = ["embedding", "behind layer 0", "behind layer 1", "behind layer 2", "behind layer 3"];
  const shown = {}, state = {};

  function chosen(place, pos) {
    const best = network.top(state.result.logits(0, place, pos), 8);
    shown.detail.replaceChildren(Demo.table(`${PLACES[place]}, at ${pos} “${state.words[pos]}”`, ["next word", "probability"],
      best.map(([word, p]) => [word, p.toFixed(3)])));
    Demo.say(shown.said, `${PLACES[place]}, at “${state.words[pos]}”: ${network.listed(best.slice(0, 3))}.`);
  }

  function cell(place, pos) {
    const [[word, p]] = network.top(state.result.logits(0, place, pos), 1);
    return { text: word, background: Demo.signed(0.75 * p), name: `${PLACES[place]}, at ${state.words[pos]}: ${word} ${p.toFixed(2)}` };
  }

  const answer = Demo.latest(async (text) => {
    const began = performance.now(), encoded = network.encode(text);
    state.result = await network.run([encoded.ids]);
    state.words = encoded.words;
    const grid = Demo.grid("The word that each place says next; the deeper the blue, the more probable", PLACES, state.words, cell, chosen);
    grid.buttons.forEach((row, place) => row.forEach((button, pos) => button.addEventListener("mouseenter", () => chosen(place, pos))));
    shown.grid.replaceChildren(grid.table);
    chosen(PLACES.length - 1, state.words.length - 1);
    if (encoded.unknown.length) Demo.say(shown.said, network.complaint(encoded));
    Demo.took(shown.step, began);
  });

  async function open(box) {
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), grid: element("div", { class: "wide" }), detail: element("div") });
    const prompt = network.prompt("prompt", "The Golden Bridge is located in", answer, [
      "The Golden Bridge is located in", "When Mary and John went to the shop, John gave a book to",
      "river pen seven garden blue river pen seven garden"]);
    box.append(element("div", { class: "controls" }, ...prompt.nodes), shown.said, shown.step, shown.grid, shown.detail);
    await network.first(shown.said, async () => {
      await network.load();
      await answer(prompt.field.value);
    });
  }

  return { open, state };
})();
