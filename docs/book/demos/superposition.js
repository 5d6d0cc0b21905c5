"use strict";

// A toy model of superposition, ReLU(WᵀWx + b), trained in the page. See `utils/superposition/toy.py`.
Demo.superposition = (() => {
  const STEPS = 1500, BATCH = 256, RATE = 0.01;
  const chosen = { features: 5, dimensions: 2, p: 0.05, falling: 1 };
  let net, seed = 0, running = false;
  const shown = {};

  // W[d][i] is dimension d of feature i's direction.
  function begin() {
    const { features: n, dimensions: m } = chosen, random = Demo.random(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const scale = Math.sqrt(2 / (n + m));
    const W = Array.from({ length: m }, () => Array.from({ length: n }, () => scale * normal()));
    const b = Array(n).fill(0);
    const zeros = () => [...W.map((row) => row.map(() => 0)), b.map(() => 0)];
    net = { W, b, random, step: 0, moments: [zeros(), zeros()], losses: [] };
    net.importance = b.map((_, i) => chosen.falling ** i);
  }

  function batch(size) {
    return Array.from({ length: size }, () =>
      net.b.map(() => (net.random() < chosen.p ? net.random() : 0)));
  }

  // The loss on some examples, and its gradient with respect to each row of W and to b.
  function lossAndGradient({ W, b, importance }, examples) {
    const gradient = [...W.map((row) => row.map(() => 0)), b.map(() => 0)], m = W.length;
    let loss = 0;
    for (const x of examples) {
      const hidden = W.map((row) => row.reduce((sum, w, i) => sum + w * x[i], 0));
      const back = W.map(() => 0);
      const errors = b.map((bias, i) => {
        const before = W.reduce((sum, row, d) => sum + row[i] * hidden[d], bias);
        const error = Math.max(before, 0) - x[i];
        loss += (importance[i] * error ** 2) / examples.length;
        return before > 0 ? (2 * importance[i] * error) / examples.length : 0;
      });
      errors.forEach((error, i) => {
        gradient[m][i] += error;
        for (let d = 0; d < m; d++) {
          gradient[d][i] += hidden[d] * error;
          back[d] += W[d][i] * error;
        }
      });
      for (let d = 0; d < m; d++) x.forEach((value, i) => (gradient[d][i] += back[d] * value));
    }
    return { loss, gradient };
  }

  // One step of Adam, at a rate that falls to 0 along half a cosine.
  function step() {
    const { loss, gradient } = lossAndGradient(net, batch(BATCH));
    const rate = (RATE * (1 + Math.cos((Math.PI * net.step) / STEPS))) / 2;
    net.step += 1;
    const [mean, square] = net.moments;
    [...net.W, net.b].forEach((row, r) => row.forEach((_, i) => {
      mean[r][i] += 0.1 * (gradient[r][i] - mean[r][i]);
      square[r][i] += 0.01 * (gradient[r][i] ** 2 - square[r][i]);
      const size = Math.sqrt(square[r][i] / (1 - 0.99 ** net.step)) + 1e-8;
      row[i] -= (rate * mean[r][i]) / (1 - 0.9 ** net.step) / size;
    }));
    net.losses.push(loss);
  }

  // WᵀW, the features' lengths, and the share of a dimension that each has for itself.
  function measure() {
    const n = net.b.length;
    const products = net.b.map((_, i) => net.b.map((_, j) => net.W.reduce((sum, row) => sum + row[i] * row[j], 0)));
    const lengths = products.map((row, i) => Math.sqrt(row[i]));
    const shares = products.map((row, i) => {
      const shared = row.reduce((sum, value) => sum + value ** 2, 0);
      return shared > 0 ? row[i] ** 2 / shared : 0;
    });
    return { products, lengths, shares, n };
  }

  // As `find_polygon` of chapter 06: the corners of the regular polygon that long enough directions form, or 0.
  function polygon(lengths) {
    const angles = net.b.map((_, i) => Math.atan2(net.W[1][i], net.W[0][i]) * (180 / Math.PI))
      .filter((_, i) => lengths[i] >= 0.5).sort((a, b) => a - b);
    const gaps = angles.map((angle, i) => (i ? angle - angles[i - 1] : angle + 360 - angles.at(-1)));
    return angles.length > 1 && gaps.every((gap) => Math.abs(gap - 360 / angles.length) <= 5) ? angles.length : 0;
  }

  function arrows() {
    const flat = net.W.length < 3;
    if (!flat) return [Demo.svg("text", { x: 0, y: 0, "text-anchor": "middle" }, "No picture in three dimensions or more")];
    const lines = net.b.flatMap((_, i) => {
      const x = 75 * net.W[0][i], y = net.W.length > 1 ? -75 * net.W[1][i] : 0, size = Math.hypot(x, y) || 1;
      return [
        Demo.svg("line", { x1: 0, y1: 0, x2: x, y2: y, class: "direction" }),
        Demo.svg("circle", { cx: x, cy: y, r: 3, class: "tip" }),
        Demo.svg("text", { x: x + (9 * x) / size, y: y + (9 * y) / size + 4, "text-anchor": "middle" }, String(i)),
      ];
    });
    return [Demo.svg("circle", { cx: 0, cy: 0, r: 75, class: "unit" }), ...lines];
  }

  function matrix({ products, n }) {
    const side = 180 / n;
    return products.flatMap((row, i) => row.map((value, j) =>
      Demo.svg("rect", { x: j * side, y: i * side, width: side, height: side, fill: Demo.signed(value), class: "cell" },
        Demo.svg("title", {}, `features ${i} and ${j}: ${value.toFixed(2)}`))));
  }

  // The loss, averaged over 25 steps at a time.
  function curve() {
    const means = [];
    for (let i = 0; i + 25 <= net.losses.length; i += 25) {
      means.push(net.losses.slice(i, i + 25).reduce((sum, loss) => sum + loss, 0) / 25);
    }
    const points = means.map((loss, i) => `${(300 * 25 * i) / STEPS},${(68 - (60 * loss) / means[0]).toFixed(1)}`);
    return [Demo.svg("line", { x1: 0, x2: 300, y1: 68, y2: 68, class: "unit" }),
      Demo.svg("polyline", { points: points.join(" "), class: "curve" })];
  }

  function draw() {
    shown.step.dataset.at = performance.now();
    const measured = measure();
    shown.arrows.replaceChildren(...arrows());
    shown.matrix.replaceChildren(...matrix(measured));
    shown.curve.replaceChildren(...curve());
    const recent = net.losses.slice(-100), mean = recent.reduce((sum, loss) => sum + loss, 0) / recent.length;
    shown.step.textContent = net.step ? `step ${net.step} of ${STEPS}, loss ${mean.toFixed(4)}` : "not trained yet";
    shown.table.replaceChildren(Demo.table("Each feature's direction", ["feature", "length", "share of a dimension"],
      measured.lengths.map((length, i) => [String(i), length.toFixed(2), measured.shares[i].toFixed(2)])));
    if (net.step === STEPS) conclude(measured);
  }

  function conclude({ lengths }) {
    const stored = lengths.filter((length) => length >= 0.5).length, m = net.W.length;
    const corners = m === 2 ? polygon(lengths) : 0;
    const shape = corners ? ` They form a regular polygon of ${corners} corners.` : "";
    Demo.say(shown.said, `Trained: ${stored} of ${lengths.length} features are stored, in ${m} ` +
      `dimension${m > 1 ? "s" : ""}.${shape}`);
  }

  // Some steps for each picture, or all of them for readers who want no motion.
  function train() {
    if (!running) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const end = performance.now() + (still ? 100 : 12);
    while (net.step < STEPS && performance.now() < end) step();
    if (!still || net.step === STEPS) draw();
    running = net.step < STEPS;
    shown.button.textContent = running ? "Stop" : "Train";
    if (running) setTimeout(train);
  }

  function press() {
    running = !running;
    if (running && net.step === STEPS) again();
    shown.button.textContent = running ? "Stop" : "Train";
    Demo.say(shown.said, running ? "Training." : "Stopped.");
    train();
  }

  function again() {
    seed += 1;
    begin();
    draw();
  }

  function set(key, value) {
    chosen[key] = Number(value);
    running = false;
    shown.button.textContent = "Train";
    begin();
    draw();
    Demo.say(shown.said, "A new network; not trained yet.");
  }

  function open(box) {
    const { element, svg, choice } = Demo;
    shown.arrows = svg("svg", { viewBox: "-100 -100 200 200", role: "img", "aria-label": "Each feature's direction in the plane" });
    shown.matrix = svg("svg", { viewBox: "0 0 180 180", role: "img", "aria-label": "Products of the features' directions with each other" });
    shown.curve = svg("svg", { viewBox: "0 0 300 70", role: "img", "aria-label": "The loss, from the first step on the left to the last on the right" });
    Object.assign(shown, { said: Demo.saying(), step: element("p", { class: "step" }), table: element("div", { class: "wide" }) });
    shown.button = element("button", { type: "button", click: press }, "Train");
    box.append(
      element("div", { class: "controls" },
        choice("features", [2, 3, 4, 5, 6, 7, 8, 10, 12], chosen.features, (value) => set("features", value)),
        choice("dimensions", [1, 2, 3, 4], chosen.dimensions, (value) => set("dimensions", value)),
        choice("a feature is on", [[1, "always"], [0.5, "half of the time"], [0.2, "1 time in 5"], [0.1, "1 time in 10"],
          [0.05, "1 time in 20"], [0.02, "1 time in 50"]], chosen.p, (value) => set("p", value)),
        choice("importance", [[1, "the same for all"], [0.8, "falls by a fifth"], [0.5, "halves each time"]],
          chosen.falling, (value) => set("falling", value)),
        shown.button,
        element("button", { type: "button", click: () => { running = false; set("p", chosen.p); again(); } }, "New start")),
      shown.said, shown.step,
      element("div", { class: "pictures" },
        element("figure", {}, shown.arrows, element("figcaption", {}, "Directions. The circle has radius 1.")),
        element("figure", {}, shown.matrix, element("figcaption", {}, "Products of directions: blue above 0, orange below.")),
        element("figure", { class: "low" }, shown.curve, element("figcaption", {}, "Loss, step by step. The dashed line is 0."))),
      shown.table);
    begin();
    draw();
    Demo.say(shown.said, "Ready.");
  }

  return { open, batch, lossAndGradient, measure, network: () => net, polygon: () => polygon(measure().lengths) };
})();
