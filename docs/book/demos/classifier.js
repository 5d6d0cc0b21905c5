"use strict";

// A network that reads digits of 8 by 8 pixels, and three maps of what its answer depends on.
Demo.classifier = (() => {
  const { network, svg, element } = Demo;
  const SIDE = 8, N = SIDE * SIDE, SAMPLES = 500, SCALE = 0.3, WIDTH = 6, RIDGE = 1, PATCH = 2;
  const shown = {}, state = { image: new Float32Array(N), target: null };
  let ort, session, examples;

  // Logits [image][digit], and the gradient of the first image's logit of `target`.
  async function run(images, target) {
    const found = await session.run({
      images: new ort.Tensor("float32", Float32Array.from(images.flatMap((image) => [...image])), [images.length, 1, SIDE, SIDE]),
      target: new ort.Tensor("int64", [BigInt(target)], [1]),
    });
    return { logits: images.map((_, i) => found.logits.data.subarray(10 * i, 10 * i + 10)), gradient: found.gradient.data };
  }

  // As `occlusion_map` of chapter 01: the mean drop of the logit over the squares that cover a pixel.
  async function occlusion(target) {
    const corners = [];
    for (let y = 0; y <= SIDE - PATCH; y++) for (let x = 0; x <= SIDE - PATCH; x++) corners.push([y, x]);
    const near = (pixel, corner) => pixel >= corner && pixel < corner + PATCH;
    const inside = (i, [y, x]) => near(Math.floor(i / SIDE), y) && near(i % SIDE, x);
    const { logits } = await run([state.image, ...corners.map((at) => state.image.map((ink, i) => (inside(i, at) ? 0 : ink)))], target);
    const drops = corners.map((_, i) => logits[0][target] - logits[i + 1][target]);
    return Array.from(state.image, (_, i) => {
      const over = drops.filter((_, c) => inside(i, corners[c]));
      return over.reduce((sum, drop) => sum + drop, 0) / over.length;
    });
  }

  function neighbours() {
    const random = Demo.random(1);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    return Array.from({ length: SAMPLES }, (_, row) => state.image.map((ink) => (row ? ink + SCALE * normal() : ink)));
  }

  // As `lime_explain` of chapter 01: a weighted ridge regression on noisy copies of the image.
  async function lime(target) {
    state.neighbours = neighbours();
    const { logits } = await run(state.neighbours, target);
    const steps = state.neighbours.map((row) => Array.from(row, (ink, i) => (ink - state.image[i]) / SCALE));
    const weights = steps.map((row) => Math.exp(-row.reduce((sum, step) => sum + step ** 2, 0) / WIDTH ** 2));
    const total = weights.reduce((sum, weight) => sum + weight), changes = logits.map((row) => row[target] - logits[0][target]);
    const mean = (values) => values.reduce((sum, value, row) => sum + (weights[row] / total) * value, 0);
    const middle = steps[0].map((_, i) => mean(steps.map((row) => row[i]))), change = mean(changes);
    const gram = middle.map((_, i) => middle.map((_, j) => (i === j ? RIDGE / total : 0))), right = middle.map(() => 0);
    steps.forEach((row, r) => {
      const share = weights[r] / total, centred = row.map((step, i) => step - middle[i]);
      centred.forEach((step, i) => {
        right[i] += share * step * (changes[r] - change);
        for (let j = 0; j < N; j++) gram[i][j] += share * step * centred[j];
      });
    });
    return solve(gram, right);
  }

  // Gaussian elimination; the matrix is positive definite, so no rows are exchanged.
  function solve(matrix, right) {
    for (let i = 0; i < right.length; i++) {
      for (let r = i + 1; r < right.length; r++) {
        const factor = matrix[r][i] / matrix[i][i];
        for (let c = i; c < right.length; c++) matrix[r][c] -= factor * matrix[i][c];
        right[r] -= factor * right[i];
      }
    }
    for (let i = right.length - 1; i >= 0; i--) {
      for (let c = i + 1; c < right.length; c++) right[i] -= matrix[i][c] * right[c];
      right[i] /= matrix[i][i];
    }
    return right;
  }

  function map(name, explained, values) {
    const largest = Math.max(...values.map(Math.abs)) || 1, strongest = values.indexOf(Math.max(...values));
    const cells = values.map((value, i) => svg("rect", { x: 10 * (i % SIDE), y: 10 * Math.floor(i / SIDE), width: 10, height: 10, fill: Demo.signed(value, largest), class: "cell" },
      svg("title", {}, Demo.number(value))));
    const ink = Array.from(state.image, (value, i) => svg("circle", { cx: 10 * (i % SIDE) + 5, cy: 10 * Math.floor(i / SIDE) + 5, r: 2 * value, class: "ink" }));
    const label = `${name}: strongest at row ${Math.floor(strongest / SIDE)}, column ${strongest % SIDE}`;
    return element("figure", {}, svg("svg", { viewBox: "0 0 80 80", role: "img", "aria-label": label }, ...cells, ...ink),
      element("figcaption", {}, `${name}: ${explained}. Full colour is ${Demo.number(largest)}.`));
  }

  const answer = Demo.latest(async () => {
    const began = performance.now();
    const { logits: [logits] } = await run([state.image], 0), p = network.softmax(logits), read = Demo.argmax(p);
    const target = state.target ?? read;
    state.logits = Array.from(logits);
    state.maps = { occlusion: await occlusion(target), gradient: Array.from((await run([state.image], target)).gradient), lime: await lime(target) };
    const { occlusion: covered, gradient, lime: fitted } = state.maps;
    shown.maps.replaceChildren(map("Occlusion", "how far the logit falls when squares over a pixel are covered", covered),
      map("Gradient", "how the logit changes for each unit of ink", gradient), map("LIME", `a linear fit to ${SAMPLES} noisy copies`, fitted));
    shown.table.replaceChildren(Demo.table("What the network says", ["digit", ...p.keys()].map(String), [["probability", ...p.map((share) => share.toFixed(2))]]));
    Demo.say(shown.said, `The network reads ${read} (${p[read].toFixed(2)}). The maps explain the logit of ${target}.`);
    Demo.took(shown.step, began);
  });

  function paint(i, ink) {
    state.image[i] = ink;
    dress(i);
    answer();
  }

  function dress(i) {
    const button = shown.pad.buttons[Math.floor(i / SIDE)][i % SIDE], name = `row ${Math.floor(i / SIDE)}, column ${i % SIDE}: ink ${state.image[i].toFixed(2)}`;
    button.style.background = `color-mix(in srgb, var(--color-foreground-primary) ${100 * state.image[i]}%, var(--color-background-secondary))`;
    button.setAttribute("aria-label", name);
  }

  function show(image) {
    state.image.set(image);
    image.forEach((_, i) => dress(i));
    answer();
  }

  // A pad of buttons: a pointer draws, the space bar changes one pixel.
  function pad() {
    let ink = null, byPointer = false;
    const names = Array.from({ length: SIDE }, (_, i) => String(i));
    const toggle = (y, x) => !byPointer && paint(SIDE * y + x, state.image[SIDE * y + x] > 0.5 ? 0 : 1);
    shown.pad = Demo.grid("Draw here; a second stroke erases", names, names, () => ({ text: "", name: "" }), toggle);
    shown.pad.table.classList.add("pad");
    shown.pad.buttons.flat().forEach((button, i) => {
      button.addEventListener("pointerdown", (event) => {
        button.releasePointerCapture(event.pointerId);
        byPointer = true;
        ink = state.image[i] > 0.5 ? 0 : 1;
        paint(i, ink);
      });
      button.addEventListener("pointerenter", () => ink !== null && paint(i, ink));
    });
    addEventListener("pointerup", () => {
      ink = null;
      setTimeout(() => (byPointer = false));
    });
    return shown.pad.table;
  }

  async function open(box) {
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), maps: element("div", { class: "pictures" }), table: element("div", { class: "wide" }) });
    const bar = element("div", { class: "controls" });
    box.append(bar, shown.said, shown.step, element("div", { class: "pictures" }, element("div", { class: "wide" }, pad()), shown.maps), shown.table);
    await network.first(shown.said, async () => {
      ort = await network.library();
      const [model, images] = await network.packed("digits.js", ["model", "examples"]);
      session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
      examples = JSON.parse(new TextDecoder().decode(images));
      const named = examples.map(({ digit }, i) => [i, `a ${digit} (${i})`]);
      bar.append(Demo.choice("pick", named, 4, (i) => show(examples[i].image.map((ink) => ink / 16))),
        element("button", { type: "button", click: () => show(Array(N).fill(0)) }, "Clear"),
        Demo.choice("explain the logit of", [["", "what it reads"], ...Array(10).keys()], "", (digit) => {
          state.target = digit === "" ? null : Number(digit);
          answer();
        }));
      state.image.set(examples[4].image.map((ink) => ink / 16));
      state.image.forEach((_, i) => dress(i));
      await answer();
    });
  }

  return { open, state };
})();
