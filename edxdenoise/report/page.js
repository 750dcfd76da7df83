"use strict";
// The spectrum and numbers of a box, and the change between raw and denoised maps.
window.edxdenoise = (function () {
  const $ = (id) => document.getElementById(id);
  const meta = $("box-meta") ? JSON.parse($("box-meta").textContent) : null;
  const ready = {};
  let shown = null;

  function model(name) {
    for (const doc of Bokeh.documents) {
      const found = doc.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  }

  async function unpack(name, kind) {
    const text = atob($("data-" + name).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    const types = {u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};
    return new types[kind](buffer);
  }

  const clip = (value, low, high) => Math.min(Math.max(value, low), high);

  // Ends of a box in pixels, grown to whole cells.
  function snapped(y0, y1, x0, x1) {
    const out = [];
    for (const [a, b, size] of [[y0, y1, meta.rows], [x0, x1, meta.columns]]) {
      const low = clip(Math.floor(Math.min(a, b) / meta.side), 0, Math.ceil(size / meta.side) - 1);
      const high = Math.max(Math.ceil(Math.max(a, b) / meta.side), low + 1);
      out.push(low * meta.side, Math.min(high * meta.side, size));
    }
    return out;
  }

  // Raw and denoised spectrum of a box of whole cells.
  function spectra([y0, y1, x0, x1]) {
    const n = meta.channels, side = meta.side, across = Math.ceil(meta.columns / side);
    const down = Math.ceil(meta.rows / side);
    const raw = new Float64Array(n), denoised = new Float64Array(n);
    const parts = new Float64Array(meta.parts);
    for (let y = Math.floor(y0 / side); y < Math.ceil(y1 / side); y++) {
      for (let x = Math.floor(x0 / side); x < Math.ceil(x1 / side); x++) {
        const cell = y * across + x, start = cell * n;
        for (let e = 0; e < n; e++) raw[e] += ready.cells[start + e];
        for (let k = 0; k < meta.parts; k++) parts[k] += ready.amounts[k * across * down + cell];
      }
    }
    for (let k = 0; k < meta.parts; k++)
      for (let e = 0; e < n; e++) denoised[e] += parts[k] * ready.spectra[k * n + e];
    return {raw, denoised};
  }

  // Net counts of all lines and their covariances, without and with the detector's response.
  function net(spectrum) {
    const lines = meta.lines.length, n = meta.channels, a = ready.estimators;
    const value = new Float64Array(lines);
    const counting = Array.from({length: lines}, () => new Float64Array(lines));
    for (let l = 0; l < lines; l++) {
      for (let e = 0; e < n; e++) value[l] += a[l * n + e] * spectrum[e];
      for (let m = 0; m <= l; m++) {
        let sum = 0;
        for (let e = 0; e < n; e++) sum += a[l * n + e] * a[m * n + e] * spectrum[e];
        counting[l][m] = counting[m][l] = sum;
      }
    }
    const both = counting.map((row) => Float64Array.from(row));
    for (let d = 0; d < meta.directions; d++) {
      const shift = new Float64Array(lines);
      for (let l = 0; l < lines; l++)
        for (let e = 0; e < n; e++) shift[l] += ready.systematic[(d * lines + l) * n + e] * spectrum[e];
      for (let l = 0; l < lines; l++)
        for (let m = 0; m < lines; m++) both[l][m] += shift[l] * shift[m];
    }
    return {value, counting, both};
  }

  // Atomic percents of the lines that have a k-factor, as `region_table` has them.
  function composition({value, both}) {
    const used = meta.factors.map((f, i) => i).filter((i) => meta.factors[i][0] !== null);
    const sd = (i) => Math.sqrt(both[i][i]);
    const detected = used.map((i) => value[i] > 3 * sd(i));
    const amount = used.map((i, p) => (detected[p] ? meta.factors[i][0] * value[i] : 0));
    const total = amount.reduce((sum, part) => sum + part, 0);
    const result = {};
    used.forEach((i, p) => {
      if (!(total > 0)) return;
      const factor = meta.factors[i][0], share = amount[p] / total;
      if (!detected[p]) {
        let one = 0;
        for (let e = 0; e < meta.channels; e++)
          one = Math.max(one, ready.estimators[i * meta.channels + e]);
        const least = 3 * factor * Math.sqrt(both[i][i] + one * one);
        result[i] = {limit: 100 * least / (total + least)};
        return;
      }
      let variance = 0;
      used.forEach((l, q) => used.forEach((m, r) => {
        const a = (q === p ? 1 : 0) - share, b = (r === p ? 1 : 0) - share;
        variance += a * b * meta.factors[l][0] * meta.factors[m][0] * both[l][m];
        if (q === r) {
          const own = detected[q] ? value[l] * meta.factors[l][1] : 0;
          variance += a * b * own * own;
        }
      }));
      result[i] = {value: 100 * share, stddev: 100 * Math.sqrt(Math.max(variance, 0)) / total};
    });
    return result;
  }

  // A ratio of two elements, both of them detected.
  function ratio(text, {value, both}) {
    const [a, b] = text.split("/").map((name) => meta.elements.indexOf(name));
    const [ka, sa] = meta.factors[a], [kb, sb] = meta.factors[b];
    if (!(value[a] > 3 * Math.sqrt(both[a][a]) && value[b] > 3 * Math.sqrt(both[b][b]))) return null;
    const above = ka * value[a], below = kb * value[b], r = above / below;
    const variance = ka * ka * both[a][a] + (value[a] * sa) ** 2
      + r * r * (kb * kb * both[b][b] + (value[b] * sb) ** 2) - 2 * r * ka * kb * both[a][b];
    return {value: r, stddev: Math.sqrt(Math.max(variance, 0)) / below};
  }

  function words(one) {
    if (!one) return "–";
    if (one.limit !== undefined) return "< " + one.limit.toPrecision(2) + " (3 σ)";
    if (!(one.stddev > 0)) return String(Number(one.value.toPrecision(3)));
    const digits = clip(-Math.floor(Math.log10(one.stddev)), 0, 12);
    const write = (number) => number.toLocaleString("en",
      {minimumFractionDigits: digits, maximumFractionDigits: digits});
    return (write(one.value) + " ± " + write(one.stddev)).replaceAll("-", "−");
  }

  function fill(heads, rows) {
    const table = $("box-table");
    const head = table.tHead.rows[0], body = table.tBodies[0];
    head.replaceChildren();
    body.replaceChildren();
    heads.forEach((text, i) => {
      const cell = document.createElement(i ? "th" : "td");
      if (i) cell.scope = "col";
      cell.textContent = text;
      head.append(cell);
    });
    for (const row of rows) {
      const line = body.insertRow();
      row.forEach((text, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        cell.textContent = text;
        line.append(cell);
      });
    }
  }

  function show(y0, y1, x0, x1) {
    const box = snapped(y0, y1, x0, x1);
    [$("box-y0").value, $("box-y1").value, $("box-x0").value, $("box-x1").value] = box;
    const {raw, denoised} = spectra(box);
    const source = model("box-data");
    source.data = {...source.data, raw: raw, denoised: denoised};
    const labels = model("box-labels");
    const y = Array.from(labels.data.channel, (at) => Math.max(...raw.slice(Math.max(at - 2, 0), at + 3)));
    labels.data = {...labels.data, y: y};
    const whole = box[0] === 0 && box[2] === 0 && box[1] === meta.rows && box[3] === meta.columns;
    const sx = meta.width / meta.columns, sy = meta.height / meta.rows;
    model("box").data = whole ? {left: [], right: [], top: [], bottom: []}
      : {top: [box[0] * sy], bottom: [box[1] * sy], left: [box[2] * sx], right: [box[3] * sx]};
    const counts = raw.reduce((sum, part) => sum + part, 0);
    const pixels = (box[1] - box[0]) * (box[3] - box[2]);
    $("box-words").textContent = (whole ? "Whole map" : `Rows ${box[0]} to ${box[1]}, columns ${box[2]} to ${box[3]}`)
      + `: ${pixels.toLocaleString("en")} pixels, ${Math.round(counts).toLocaleString("en")} counts`;
    const found = net(raw), at = composition(found), smooth = meta.parts ? net(denoised).value : null;
    const composed = Object.keys(at).length > 0;
    const heads = ["line", "raw net counts"];
    if (smooth) heads.push("denoised net counts");
    if (composed) heads.push("at%");
    const rows = meta.lines.map((name, i) => {
      const row = [name, words({value: found.value[i], stddev: Math.sqrt(found.both[i][i])})];
      if (smooth) row.push(Math.round(smooth[i]).toLocaleString("en").replace("-", "−"));
      if (composed) row.push(words(at[i]));
      return row;
    });
    for (const text of meta.ratios) {
      const row = [text + " (atoms)", ""];
      if (smooth) row.push("");
      rows.push([...row, words(ratio(text, found))]);
    }
    fill(heads, rows);
    shown = {box, raw, denoised, net: found, at, ratios: meta.ratios.map((text) => ratio(text, found))};
  }

  function select(geometry) {
    if (!meta || !ready.cells) return;
    const sx = meta.width / meta.columns, sy = meta.height / meta.rows;
    show(geometry.y0 / sy, geometry.y1 / sy, geometry.x0 / sx, geometry.x1 / sx);
  }

  function whole() {
    if (meta && ready.cells) show(0, meta.rows, 0, meta.columns);
  }

  function save() {
    const energy = model("box-data").data.x;
    const lines = ["energy (keV),raw (counts)" + (meta.parts ? ",denoised (counts)" : "")];
    for (let e = 0; e < meta.channels; e++)
      lines.push([energy[e], shown.raw[e], ...(meta.parts ? [shown.denoised[e]] : [])].join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
    link.download = "box_" + shown.box.join("_") + ".csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // Raw maps lie over the denoised ones: the slider is their opacity.
  function blend(share) {
    for (const doc of Bokeh.documents)
      for (const root of doc.roots())
        for (const renderer of root.renderers || [])
          if (renderer.name === "over") renderer.glyph.global_alpha = {value: share};
  }

  let timer = null;
  function flicker() {
    const button = $("flicker"), slider = $("blend");
    const on = timer === null;
    button.setAttribute("aria-pressed", String(on));
    if (on) timer = setInterval(() => { slider.value = 100 - slider.value; blend(slider.value / 100); }, 700);
    else { clearInterval(timer); timer = null; slider.value = 0; blend(0); }
  }

  async function start() {
    if ($("blend")) {
      $("blend").addEventListener("input", (event) => blend(event.target.value / 100));
      $("flicker").addEventListener("click", flicker);
    }
    if (!meta) return;
    for (const [name, kind] of Object.entries(meta.arrays)) ready[name] = await unpack(name, kind);
    $("box-form").addEventListener("submit", (event) => {
      event.preventDefault();
      show(...["box-y0", "box-y1", "box-x0", "box-x1"].map((id) => Number($(id).value)));
    });
    $("box-whole").addEventListener("click", whole);
    $("box-save").addEventListener("click", save);
    const told = window.location.hash.match(/^#box=(\d+),(\d+),(\d+),(\d+)$/);
    if (told) show(...told.slice(1).map(Number));
    else whole();
    document.documentElement.dataset.ready = "true";
  }

  // Bokeh draws when the document is there.
  const wait = setInterval(() => {
    if (!window.Bokeh || !Bokeh.documents.length || (meta && !model("box-data"))) return;
    clearInterval(wait);
    start();
  }, 50);

  return {select, whole, show, blend, shown: () => shown};
})();
