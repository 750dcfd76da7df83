"use strict";
// Spectrum and numbers of what is drawn, three elements in one, raw and denoised maps in turn.
window.edxdenoise = (function () {
  const $ = (id) => document.getElementById(id);
  const meta = $("box-meta") ? JSON.parse($("box-meta").textContent) : null;
  const ready = {};
  const NAME_WIDTH = 13; // pixels that an upright name takes
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

  const across = () => Math.ceil(meta.columns / meta.side), down = () => Math.ceil(meta.rows / meta.side);

  // Cells of a box of whole cells.
  function cellsOfBox([y0, y1, x0, x1]) {
    const found = [], side = meta.side;
    for (let y = Math.floor(y0 / side); y < Math.ceil(y1 / side); y++)
      for (let x = Math.floor(x0 / side); x < Math.ceil(x1 / side); x++) found.push(y * across() + x);
    return found;
  }

  const ends = (n, size) => [n * meta.side, Math.min((n + 1) * meta.side, size)];

  // Cells whose centres a polygon of [x, y] holds, in pixels.
  function cellsOfLasso(points) {
    const found = [];
    for (let row = 0; row < down(); row++) {
      const [top, bottom] = ends(row, meta.rows), y = (top + bottom) / 2;
      for (let column = 0; column < across(); column++) {
        const [left, right] = ends(column, meta.columns), x = (left + right) / 2;
        let inside = false;
        points.forEach(([ax, ay], i) => {
          const [bx, by] = points[(i + 1) % points.length];
          if ((ay > y) !== (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)) inside = !inside;
        });
        if (inside) found.push(row * across() + column);
      }
    }
    return found;
  }

  function pixelsOf(cells) {
    return cells.reduce((sum, cell) => {
      const [y0, y1] = ends(Math.floor(cell / across()), meta.rows), [x0, x1] = ends(cell % across(), meta.columns);
      return sum + (y1 - y0) * (x1 - x0);
    }, 0);
  }

  // Raw and denoised spectrum of cells.
  function spectra(cells) {
    const n = meta.channels, all = across() * down();
    const raw = new Float64Array(n), denoised = new Float64Array(n);
    const parts = new Float64Array(meta.parts);
    for (const cell of cells) {
      for (let e = 0; e < n; e++) raw[e] += ready.cells[cell * n + e];
      for (let k = 0; k < meta.parts; k++) parts[k] += ready.amounts[k * all + cell];
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

  // Spectrum and numbers of a region: its cells, the corners of its outline as [x, y], its name.
  function tell(cells, corners, name, box) {
    const {raw, denoised} = spectra(cells);
    const source = model("box-data");
    source.data = {...source.data, raw: raw, denoised: denoised};
    const labels = model("box-labels");
    const y = Array.from(labels.data.channel, (at) => Math.max(...raw.slice(Math.max(at - 2, 0), at + 3)));
    labels.data = {...labels.data, y: y};
    const sx = meta.width / meta.columns, sy = meta.height / meta.rows;
    model("outline").data = {xs: corners.length ? [corners.map(([x]) => x * sx)] : [],
      ys: corners.length ? [corners.map(([, y]) => y * sy)] : []};
    const counts = raw.reduce((sum, part) => sum + part, 0);
    $("box-words").textContent = `${name}: ${pixelsOf(cells).toLocaleString("en")} pixels, ${Math.round(counts).toLocaleString("en")} counts`;
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
    shown = {box, corners, raw, denoised, net: found, at, ratios: meta.ratios.map((text) => ratio(text, found))};
  }

  function show(...limits) {
    const box = snapped(...limits), [y0, y1, x0, x1] = box;
    [$("box-y0").value, $("box-y1").value, $("box-x0").value, $("box-x1").value] = box;
    const whole = y0 === 0 && x0 === 0 && y1 === meta.rows && x1 === meta.columns;
    const corners = whole ? [] : [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
    tell(cellsOfBox(box), corners, whole ? "Whole map" : `Rows ${y0} to ${y1}, columns ${x0} to ${x1}`, box);
  }

  function lasso(points) {
    const cells = cellsOfLasso(points);
    if (cells.length) tell(cells, points, "Lasso", null);
    else $("box-words").textContent = "The lasso holds the centre of no pixel: draw a larger one.";
  }

  function select(geometry) {
    if (!meta || !ready.cells) return;
    const sx = meta.width / meta.columns, sy = meta.height / meta.rows;
    if (geometry.type === "poly") lasso(Array.from(geometry.x, (x, i) => [x / sx, geometry.y[i] / sy]));
    else show(geometry.y0 / sy, geometry.y1 / sy, geometry.x0 / sx, geometry.x1 / sx);
  }

  function whole() {
    if (meta && ready.cells) show(0, meta.rows, 0, meta.columns);
  }

  function save() {
    const energy = model("box-data").data.x;
    const lines = ["energy (keV),raw (counts)" + (meta.parts ? ",denoised (counts)" : "")];
    for (let e = 0; e < meta.channels; e++)
      lines.push([energy[e], shown.raw[e], ...(meta.parts ? [shown.denoised[e]] : [])].join(","));
    download("spectrum.csv", "text/csv", lines.join("\n") + "\n");
  }

  // As ImageJ and QuPath have it: x and y in pixels from the upper left corner of the first one.
  function saveOutline() {
    const all = [[0, 0], [meta.columns, 0], [meta.columns, meta.rows], [0, meta.rows]];
    const corners = shown.corners.length ? shown.corners : all;
    download("region.geojson", "application/geo+json", JSON.stringify({type: "Feature", properties: {},
      geometry: {type: "Polygon", coordinates: [[...corners, corners[0]]]}}));
  }

  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // Each map in its colour, added up; grey where none has a value.
  function overlay() {
    const layers = [...document.querySelectorAll(".layers select")].filter((one) => one.value);
    const image = model("overlay-data").data.image[0], bytes = new Uint8Array(image.buffer, image.byteOffset, 4 * image.length);
    const maps = layers.map((one) => [model("map-" + one.value).data.image[0], one.dataset.colour.split(",").map(Number)]);
    for (let i = 0; i < image.length; i++) {
      const sum = [0, 0, 0];
      let known = !maps.length;
      for (const [steps, colour] of maps) {
        if (!steps[i]) continue;
        known = true;
        for (let c = 0; c < 3; c++) sum[c] += (steps[i] - 1) / 254 * colour[c];
      }
      for (let c = 0; c < 3; c++) bytes[4 * i + c] = known ? Math.round(255 * Math.min(sum[c], 1)) : 191;
    }
    model("overlay-data").change.emit();
    const words = layers.map((one) => one.selectedOptions[0].textContent);
    $("overlay-plot").setAttribute("aria-label", "overlay of " + (words.join(", ") || "nothing"));
  }

  // Upright names that would stand in each other's way are left out, those of larger peaks stay.
  function tidy(plotName, labelsName) {
    const plot = model(plotName), labels = model(labelsName);
    if (!plot || !labels) return;
    const {start, end} = plot.x_range, {x, name} = labels.data, placed = [];
    const scale = plot.inner_width / (end - start);
    const text = Array.from(x, (at, i) => {
      const place = (at - start) * scale;
      if (placed.some((other) => Math.abs(other - place) < NAME_WIDTH)) return "";
      placed.push(place);
      return name[i];
    });
    if (text.some((one, i) => one !== labels.data.text[i])) labels.data = {...labels.data, text};
  }

  function tidyAlways(plotName, labelsName) {
    const plot = model(plotName), again = () => tidy(plotName, labelsName);
    if (!plot) return;
    again();
    for (const property of [plot.properties.inner_width, plot.x_range.properties.start, plot.x_range.properties.end])
      property.change.connect(again);
  }

  // What the pointer draws on all maps.
  function draw(kind) {
    for (const doc of Bokeh.documents)
      for (const root of doc.roots())
        for (const tool of (root.toolbar && root.toolbar.tools) || []) if (tool.type === kind) tool.active = true;
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
    for (const one of document.querySelectorAll(".layers select")) one.addEventListener("change", overlay);
    tidyAlways("sum-spectrum", "sum-labels");
    tidyAlways("box-spectrum", "box-labels");
    if (!meta) return;
    $("draw")?.addEventListener("change", (event) => draw(event.target.value));
    for (const [name, kind] of Object.entries(meta.arrays)) ready[name] = await unpack(name, kind);
    $("box-form").addEventListener("submit", (event) => {
      event.preventDefault();
      show(...["box-y0", "box-y1", "box-x0", "box-x1"].map((id) => Number($(id).value)));
    });
    $("box-whole").addEventListener("click", whole);
    $("box-save").addEventListener("click", save);
    $("box-outline").addEventListener("click", saveOutline);
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

  return {select, whole, show, lasso, blend, shown: () => shown};
})();
