"use strict";

// The course model, run by ONNX Runtime Web. Its library and its weights lie packed in scripts, because a page opened
// from a folder may load nothing else.
Demo.files = {};
Demo.network = (() => {
  const N_LAYERS = 4, N_HEADS = 4, D_MODEL = 128, PLACES = N_LAYERS + 1, LONGEST = 96;
  const here = document.currentScript.src;
  let ort, session, vocabulary, numbers;

  function script(name) {
    return new Promise((resolve, reject) => document.head.append(
      Demo.element("script", { src: new URL(name, here).href, load: resolve, error: () => reject(new Error(`${name} is missing`)) })));
  }

  async function unpacked(name) {
    const packed = await fetch(`data:application/octet-stream;base64,${Demo.files[name]}`);
    delete Demo.files[name];
    return new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  // The named files of a packed script.
  async function packed(name, files) {
    await script(name);
    return Promise.all(files.map(unpacked));
  }

  async function library() {
    const [code, wasm] = await packed("runtime.js", ["library", "wasm"]);
    const ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
    return ort;
  }

  async function load() {
    let model, words;
    [ort, [model, words]] = await Promise.all([library(), packed("course-model.js", ["model", "vocabulary"])]);
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    vocabulary = JSON.parse(new TextDecoder().decode(words));
    numbers = new Map(vocabulary.map((word, i) => [word, i]));
  }

  // The numbers of a text's words, `<bos>` first, and the words that the model does not know.
  function encode(text) {
    const words = ["<bos>", ...(text.match(/<\w+>|'s|\w+|[^\w\s]/g) || [])].slice(0, LONGEST);
    const unknown = words.filter((word) => !numbers.has(word));
    return { words, unknown, ids: words.map((word) => numbers.get(word) ?? numbers.get("<unk>")) };
  }

  // Run rows of equally many words. `added[row]` is a list of { place, pos, vector } to add to the residual stream.
  async function run(rows, added = []) {
    const batch = rows.length, pos = rows[0].length, sum = new Float32Array(batch * PLACES * pos * D_MODEL);
    added.forEach((list, row) => list.forEach((at) => sum.set(at.vector, ((row * PLACES + at.place) * pos + at.pos) * D_MODEL)));
    const found = await session.run({
      tokens: new ort.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [batch, pos]),
      added: new ort.Tensor("float32", sum, [batch, PLACES, pos, D_MODEL]),
    });
    const part = (values, width, index) => values.subarray(index * width, (index + 1) * width);
    return {
      logits: (row, place, at) => part(found.logits.data, vocabulary.length, (row * PLACES + place) * pos + at),
      stream: (row, place, at) => part(found.streams.data, D_MODEL, (row * PLACES + place) * pos + at),
      pattern: (layer, head, query) => part(found.patterns.data, pos, (layer * N_HEADS + head) * pos + query),
    };
  }

  function softmax(logits) {
    const largest = logits.reduce((a, b) => Math.max(a, b)), weights = Array.from(logits, (x) => Math.exp(x - largest));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  }

  // The most probable words, as [word, probability].
  function top(logits, k = 5) {
    const p = softmax(logits);
    return p.map((_, i) => i).sort((i, j) => p[j] - p[i]).slice(0, k).map((i) => [vocabulary[i], p[i]]);
  }

  function listed(words) {
    return words.map(([word, p]) => `${word} ${p.toFixed(2)}`).join(", ");
  }

  function complaint({ unknown }) {
    return unknown.length ? `The model does not know ${unknown.map((word) => `“${word}”`).join(", ")}. ` : "";
  }

  // A field for a text, which calls `changed` at each change; `examples` are offered beside it.
  function prompt(label, value, changed, examples = []) {
    const field = Demo.element("input", { type: "text", value, spellcheck: "false", autocomplete: "off", input: () => changed(field.value) });
    const box = Demo.element("label", { class: "grow" }, label, field);
    const offer = examples.length && Demo.choice("examples", [["", "choose"], ...examples], "", (text) => {
      if (text) changed((field.value = text));
    });
    return { field, nodes: offer ? [box, offer] : [box] };
  }

  // Say that a model is being opened while the first work is done; a failure is told in the page.
  async function first(said, work) {
    Demo.say(said, "The model is being opened.");
    try {
      await work();
    } catch (error) {
      Demo.say(said, `The model could not be opened: ${error.message}`);
      throw error;
    }
  }

  return { N_LAYERS, N_HEADS, PLACES, LONGEST, library, packed, load, encode, run, softmax, top, listed, complaint, prompt, first,
    words: () => vocabulary };
})();
