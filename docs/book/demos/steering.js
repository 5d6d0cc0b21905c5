"use strict";

// A latent of the shipped dictionary is held at a value while the model writes; see `clamp_feature` of chapter 08.
Demo.steering = (() => {
  const { network, element } = Demo;
  const PLACE = 3, WIDTH = 128, N_WORDS = 12; // the dictionary reads the stream behind layer 2
  const shown = {}, state = { latent: 0, times: 5, seed: 1 };
  let dictionary;

  async function load() {
    const [info, W_enc, b_enc, W_dec] = await network.packed("dictionary.js", ["info", "W_enc", "b_enc", "W_dec"]);
    dictionary = { ...JSON.parse(new TextDecoder().decode(info)), W_enc: new Float32Array(W_enc), b_enc: new Float32Array(b_enc), W_dec: new Float32Array(W_dec) };
  }

  // What a latent is at, given an activation: only the k largest are kept.
  function activation(x, latent) {
    const { W_enc, b_enc, k } = dictionary, before = Float32Array.from(b_enc), n = b_enc.length;
    x.forEach((value, d) => { for (let i = 0; i < n; i++) before[i] += value * W_enc[d * n + i]; });
    const own = before[latent], larger = before.reduce((count, value) => count + (value > own), 0);
    return larger < k ? Math.max(own, 0) : 0;
  }

  // The logits behind the last word, the latent held at `value` at every word; untouched if that is null.
  async function step(ids, value, added) {
    if (value === null) return (await network.run([ids])).logits(0, network.PLACES - 1, ids.length - 1);
    const plain = await network.run([ids]);
    for (let pos = added.length; pos < ids.length; pos++) {
      const change = value - activation(plain.stream(0, PLACE, pos), state.latent);
      const row = dictionary.W_dec.subarray(state.latent * WIDTH, (state.latent + 1) * WIDTH);
      added.push({ place: PLACE, pos, vector: row.map((weight) => change * weight) });
    }
    return (await network.run([ids], [added])).logits(0, network.PLACES - 1, ids.length - 1);
  }

  function draw(p, random) {
    let left = random();
    return p.findIndex((share) => (left -= share) < 0);
  }

  // What the model writes, and its first step's probabilities.
  async function write(ids, value) {
    const random = Demo.random(state.seed), all = [...ids], added = [];
    let first = null;
    for (let n = 0; n < N_WORDS && all.length < network.LONGEST; n++) {
      const logits = await step(all, value, added);
      first ??= logits;
      all.push(draw(network.softmax(logits), random));
    }
    return { first, text: all.slice(ids.length).map((i) => network.words()[i]).join(" ") };
  }

  function table(name, logits) {
    return Demo.table(name, ["next word", "probability"], network.top(logits).map(([word, p]) => [word, p.toFixed(2)]));
  }

  const answer = Demo.latest(async () => {
    const began = performance.now(), encoded = network.encode(shown.field.value), { latent, times, seed } = state;
    const about = dictionary.latents[latent], key = `${seed} ${encoded.ids}`, ids = encoded.ids.slice(0, network.LONGEST - N_WORDS);
    shown.about.textContent = `Latent ${latent}: its direction raises ${about.raises.join(", ")}; on 120 documents it is ` +
      (about.largest > 0 ? `at most ${about.largest.toFixed(1)}, highest at ${about.on.join(", ")}.` : "never on.");
    if (state.key !== key) state.plain = await write(ids, null);
    state.key = key;
    state.value = times * about.largest;
    state.steered = await write(ids, state.value);
    shown.plain.textContent = state.plain.text;
    shown.steered.textContent = state.steered.text;
    shown.tables.replaceChildren(table("As the model is", state.plain.first), table(`Latent ${latent} held at ${state.value.toFixed(1)}`, state.steered.first));
    Demo.say(shown.said, `${network.complaint(encoded)}With latent ${latent} at ${times} times its largest value the next word is ${network.listed(network.top(state.steered.first, 2))}.`);
    Demo.took(shown.step, began);
  });

  function choose(latent) {
    state.latent = Math.min(Math.max(Math.round(Number(latent)) || 0, 0), dictionary.latents.length - 1);
    shown.latent.value = state.latent;
    answer();
  }

  function turn(times) {
    state.times = Number(times);
    shown.times.textContent = `${state.times}`;
    shown.turned.setAttribute("aria-valuetext", `${state.times} times its largest value`);
    answer();
  }

  function controls() {
    shown.latent = element("input", { type: "number", min: 0, max: dictionary.latents.length - 1, value: state.latent, change: () => choose(shown.latent.value) });
    shown.turned = element("input", { type: "range", min: 0, max: 10, step: 0.5, value: state.times, input: () => turn(shown.turned.value) });
    shown.times = element("output", {}, `${state.times}`);
    const offered = Demo.choice("chosen for", Object.entries(dictionary.chosen).map(([name, latent]) => [latent, name]), state.latent, choose);
    const random = () => choose(Math.floor(Math.random() * dictionary.latents.length));
    return [offered, element("label", {}, "latent ", shown.latent),
      element("button", { type: "button", click: random }, "Random latent"),
      element("label", {}, "times its largest value ", shown.turned, " ", shown.times),
      element("button", { type: "button", click: () => { state.seed += 1; answer(); } }, "Write again")];
  }

  async function open(box) {
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), about: element("p", { class: "step" }), tables: element("div", { class: "pictures" }),
      plain: element("dd"), steered: element("dd") });
    const prompt = network.prompt("prompt", "One day Hannah and Victor visited the beach, and", () => answer());
    shown.field = prompt.field;
    const bar = element("div", { class: "controls" }, ...prompt.nodes);
    box.append(bar, shown.said, shown.step, shown.about,
      element("dl", {}, element("dt", {}, "As the model is, it goes on"), shown.plain, element("dt", {}, "With the latent held"), shown.steered), shown.tables);
    await network.first(shown.said, async () => {
      await Promise.all([network.load(), load()]);
      state.latent = Object.values(dictionary.chosen)[0];
      bar.append(...controls());
      await answer();
    });
  }

  return { open, state };
})();
