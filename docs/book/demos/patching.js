"use strict";

// Two prompts: at one place of the second, the residual stream of the first is put in, and the answer may move.
Demo.patching = (() => {
  const { network, element } = Demo;
  const PLACES = ["embedding", "behind layer 0", "behind layer 1", "behind layer 2", "behind layer 3"];
  const LAST = PLACES.length - 1;
  const shown = {}, state = {};

  // What is to be added to the second prompt's stream, so that it becomes the first's.
  function difference(place, pos) {
    const own = state.second.stream(0, place, pos);
    return state.first.stream(0, place, pos).map((value, i) => value - own[i]);
  }

  // How far the first answer's logit is above the second's, at the end.
  function lead(logits) {
    return logits[state.answers[0]] - logits[state.answers[1]];
  }

  // Patch these sites [place, pos], each in a run of its own.
  async function patch(sites) {
    const run = await network.run(sites.map(() => state.ids), sites.map(([place, pos]) => [{ place, pos, vector: difference(place, pos) }]));
    sites.forEach(([place, pos], row) => {
      const logits = run.logits(row, LAST, state.ids.length - 1), share = (lead(logits) - state.leads[1]) / (state.leads[0] - state.leads[1]);
      Object.assign(state.found[place][pos], { lead: lead(logits), share, best: network.top(logits, 3) });
      const button = state.grid.buttons[place][pos], name = `${PLACES[place]}, at ${state.words[pos]}: ${Demo.number(share)}`;
      button.textContent = Demo.number(share);
      button.style.background = Demo.signed(0.75 * share);
      button.title = name;
      button.setAttribute("aria-label", name);
    });
  }

  async function chosen(place, pos) {
    const began = performance.now();
    await patch([[place, pos]]);
    const { lead: moved, share, best } = state.found[place][pos];
    Demo.say(shown.said, `Patched ${PLACES[place]}, at “${state.words[pos]}”: the lead is ${Demo.number(moved)}, ` +
      `${Demo.number(share)} of the way. Next word: ${network.listed(best)}.`);
    Demo.took(shown.step, began);
  }

  async function all() {
    if (!state.grid) return;
    const grid = state.grid, began = performance.now();
    for (let place = 0; place <= LAST && grid === state.grid; place++) {
      await patch(state.words.map((_, pos) => [place, pos]));
    }
    Demo.say(shown.said, "Every site is patched, each by itself.");
    Demo.took(shown.step, began);
  }

  function cell(place, pos) {
    return { text: "?", name: `${PLACES[place]}, at ${state.words[pos]}: not patched yet` };
  }

  const answer = Demo.latest(async () => {
    const began = performance.now(), encoded = shown.fields.map((field) => network.encode(field.value));
    state.grid = null;
    shown.grid.replaceChildren();
    const complaint = encoded.map(network.complaint).join("");
    if (encoded[0].ids.length !== encoded[1].ids.length) {
      const [first, second] = encoded.map(({ ids }) => ids.length - 1);
      return Demo.say(shown.said, `${complaint}The prompts must have equally many words, and have ${first} and ${second}.`);
    }
    [state.first, state.second] = [await network.run([encoded[0].ids]), await network.run([encoded[1].ids])];
    Object.assign(state, { ids: encoded[1].ids, words: encoded[1].words });
    const ends = [state.first, state.second].map((run) => run.logits(0, LAST, state.ids.length - 1));
    state.answers = ends.map(Demo.argmax);
    state.leads = ends.map(lead);
    const [one, two] = state.answers.map((i) => network.words()[i]);
    if (one === two) return Demo.say(shown.said, `${complaint}Both prompts are answered with “${one}”: nothing can move.`);
    state.found = PLACES.map(() => state.words.map(() => ({})));
    state.grid = Demo.grid("How far the answer moves from the second prompt's (0) to the first's (1), for each site patched", PLACES, state.words, cell, chosen);
    shown.grid.replaceChildren(state.grid.table);
    Demo.say(shown.said, `${complaint}The first prompt is answered with “${one}”, the second with “${two}”. ` +
      `The lead of “${one}” over “${two}” is ${state.leads[0].toFixed(2)} in the first and ${state.leads[1].toFixed(2)} in the second.`);
    Demo.took(shown.step, began);
  });

  async function open(box) {
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), grid: element("div", { class: "wide" }) });
    const prompts = [network.prompt("first prompt, whose stream is put in", "The Golden Bridge is located in", answer),
      network.prompt("second prompt, which is run", "The Copper Garden is located in", answer)];
    shown.fields = prompts.map((prompt) => prompt.field);
    const pairs = Demo.choice("examples", [["", "choose"], ["The Golden Bridge is located in|The Copper Garden is located in", "two landmarks"],
      ["When Mary and John went to the shop, John gave a book to|When Mary and John went to the shop, Mary gave a book to", "two givers"],
      ["When Mary and John went to the shop, John gave a book to|When Anna and Paul went to the shop, Paul gave a book to", "other people"]], "", (pair) => {
      if (pair) pair.split("|").forEach((text, i) => (shown.fields[i].value = text));
      answer();
    });
    box.append(element("div", { class: "controls" }, ...prompts.flatMap((prompt) => prompt.nodes), pairs,
      element("button", { type: "button", click: all }, "Patch every site")), shown.said, shown.step, shown.grid);
    await network.first(shown.said, async () => {
      await network.load();
      await answer();
    });
  }

  return { open, state };
})();
