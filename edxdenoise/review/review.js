"use strict";
(function () {
  const $ = (id) => document.getElementById(id);
  const body = document.body.dataset;
  const rows = Number(body.rows), columns = Number(body.columns);
  const cards = [...document.querySelectorAll(".card")];
  const SVG = "http://www.w3.org/2000/svg";
  let state = {version: -1}, box = null, shown = null, maps = 0, spectra = 0;

  function tell(text) { $("told").textContent = text; }

  async function ask(path, options) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      tell("The server does not answer: start edxdenoise review again. Choices up to now are kept.");
      throw error;
    }
    if (answer.status === 403) {
      tell("The server was started again: open the address that it printed.");
      throw new Error("refused");
    }
    const content = await answer.json();
    if (!answer.ok) { tell(content.error); throw new Error(content.error); }
    return content;
  }

  async function change(what, ...values) {
    try {
      tell(what === "save" ? "Saving …" : "");
      const next = await ask("change", {method: "POST", body: JSON.stringify({do: what, with: values})});
      take(next);
      if (what === "save") tell(next.message);
    } catch (error) {
      paint();
    }
  }

  function take(next) {
    if (next.version < state.version) return;
    const other = next.version !== state.version || next.raw !== state.raw;
    const said = next.message !== state.message;
    state = next;
    if (!other) return;
    if (said && next.message) tell(next.message);
    paint();
    showMap();
    showSpectrum();
  }

  function paint() {
    const keep = new Set(state.keep), decided = new Set(state.decided);
    for (const card of cards) {
      const number = Number(card.dataset.number), kept = keep.has(number);
      card.classList.toggle("kept", kept);
      card.classList.toggle("dropped", !kept);
      const button = card.querySelector(".keep");
      button.setAttribute("aria-pressed", String(kept));
      card.querySelector(".mark").textContent = (kept ? "kept" : "dropped") + (decided.has(number) ? ", by you" : "");
      const note = card.querySelector(".note input");
      if (document.activeElement !== note) note.value = state.notes[number] || "";
    }
    filter();
    const first = keep.has(1) ? "" : " Component 1 carries all totals: without it counts are none.";
    $("summary").textContent = `${keep.size} of ${cards.length} kept` + (state.saving ? ", saving …" : state.unsaved ? ", not saved yet" : ", saved") + "." + first;
    $("score").textContent = state.score ? `Cross-validated error ${state.score} of that of raw counts.` : "";
    fillMaps();
    $("save").disabled = !state.unsaved || state.saving;
    $("regions").replaceChildren(...state.regions.map(regionItem));
    drawBoxes();
  }

  // Lists of maps; the first line is shown at first.
  function fillMaps() {
    for (const [id, skipped] of [["name", 0], ["over", 1]]) {
      const list = $(id), chosen = list.value;
      if (list.options.length === state.maps.length) continue;
      const options = state.maps.slice(skipped).map(([name, words]) => new Option(words, name));
      if (skipped) options.unshift(new Option("nothing", ""));
      list.replaceChildren(...options);
      list.value = state.maps.some(([name]) => name === chosen) ? chosen
        : skipped ? "" : state.maps[Math.min(1, state.maps.length - 1)][0];
    }
  }

  function regionItem(text) {
    const item = document.createElement("li"), remove = document.createElement("button");
    item.append(text + " ");
    const ends = text.match(/=\s*(\d+):(\d+),(\d+):(\d+)\s*$/);
    if (ends) {
      const show = document.createElement("button");
      show.textContent = "Show";
      show.setAttribute("aria-label", "Show region " + text);
      show.addEventListener("click", () => setBox(ends.slice(1).map(Number)));
      item.append(show, " ");
    }
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", "Remove region " + text);
    remove.addEventListener("click", () => change("remove region", text));
    item.append(remove);
    return item;
  }

  function filter() {
    const wanted = $("filter").value;
    for (const card of cards) {
      const number = Number(card.dataset.number);
      card.hidden = !(wanted === "all" || card.classList.contains(wanted)
        || card.dataset.outcome === wanted
        || (wanted === "decided" && state.decided.includes(number)));
    }
  }

  async function showMap() {
    // Answers may come in another order than questions.
    const number = ++maps, version = state.version;
    const found = await ask("map?" + new URLSearchParams({name: $("name").value, over: $("over").value}));
    if (number !== maps) return;
    $("rebuilt").src = found.rebuilt;
    $("rebuilt").alt = `map of ${found.words}, rebuilt from what is kept`;
    $("raw").hidden = !found.raw;
    if (found.raw) $("raw").src = found.raw;
    $("raw").alt = `map of ${found.words}, raw`;
    $("raw-words").textContent = found.raw ? "raw" : "raw: being read …";
    $("low").textContent = found.legend.low;
    $("high").textContent = `${found.legend.high} ${found.legend.unit}`;
    $("ramp").style.background = `linear-gradient(to right, ${found.legend.gradient})`;
    document.documentElement.dataset.map = version;
  }

  async function showSpectrum() {
    const number = ++spectra, version = state.version;
    const found = await ask("spectrum" + (box ? "?box=" + box.join(",") : ""));
    if (number !== spectra) return;
    shown = found;
    ["y0", "y1", "x0", "x1"].forEach((id, i) => { if (document.activeElement !== $(id)) $(id).value = found.box[i]; });
    const [y0, y1, x0, x1] = found.box;
    const counts = found.raw.reduce((sum, part) => sum + part, 0);
    $("box-words").textContent = (box ? `Rows ${y0} to ${y1}, columns ${x0} to ${x1}` : "Whole map")
      + `: ${((y1 - y0) * (x1 - x0)).toLocaleString("en")} pixels, ${Math.round(counts).toLocaleString("en")} counts`;
    drawSpectrum();
    drawBoxes();
    const whole = (value) => Math.round(value).toLocaleString("en").replace("-", "−");
    $("lines").replaceChildren(...found.lines.map((line) => {
      const row = document.createElement("tr");
      const off = line.stddev > 0 ? ((line.rebuilt - line.raw) / line.stddev).toFixed(1).replace("-", "−") : "–";
      [line.name, `${whole(line.raw)} ± ${whole(line.stddev)}`, whole(line.rebuilt), off].forEach((text, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }));
    document.documentElement.dataset.spectrum = version;
  }

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function drawSpectrum() {
    if (!shown) return;
    const width = 600, height = 236, left = 62, bottom = 200, log = $("log").checked;
    const scale = (value) => (log ? Math.log10(Math.max(value, 0.5)) : value);
    const energy = shown.energy, first = energy[0], last = energy[energy.length - 1];
    const top = Math.max(1, ...shown.raw.map(scale), ...shown.rebuilt.map(scale));
    const low = log ? Math.log10(0.5) : Math.min(0, ...shown.rebuilt);
    const x = (value) => left + (width - left - 8) * (value - first) / (last - first);
    const y = (value) => bottom - (bottom - 8) * (scale(value) - (log ? low : scale(low))) / (top - low);
    const svg = element("svg", {viewBox: `0 0 ${width} ${height}`});
    svg.append(element("line", {x1: left, x2: width - 8, y1: bottom, y2: bottom, stroke: "#57606a"}));
    const step = [0.2, 0.5, 1, 2, 5, 10, 20].find((one) => (last - first) / one <= 10) || 50;
    for (let value = Math.ceil(first / step) * step; value <= last; value += step)
      svg.append(element("text", {x: x(value), y: bottom + 15, "text-anchor": "middle"}, String(Number(value.toFixed(2)))));
    svg.append(element("text", {x: width - 8, y: bottom + 29, "text-anchor": "end"}, "energy (keV)"));
    const marks = log ? [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((one) => Math.log10(one) <= top) : [0, top / 2, top];
    for (const value of marks) {
      const number = log || value < 10 ? value : Number(value.toPrecision(2));
      svg.append(element("text", {x: left - 5, y: y(value) + 4, "text-anchor": "end"}, number.toLocaleString("en", {maximumFractionDigits: 1, notation: number >= 1e5 ? "compact" : "standard"})));
      svg.append(element("line", {x1: left, x2: width - 8, y1: y(value), y2: y(value), stroke: "#d0d7de"}));
    }
    for (const name of ["raw", "rebuilt"]) {
      const points = energy.map((e, i) => `${x(e).toFixed(1)},${y(shown[name][i]).toFixed(1)}`).join(" ");
      svg.append(element("polyline", {points, class: "line " + name}));
    }
    $("spectrum").replaceChildren(svg);
  }

  function drawBoxes() {
    for (const frame of document.querySelectorAll(".map .box")) {
      frame.hidden = !box;
      if (!box) continue;
      const [y0, y1, x0, x1] = shown && shown.box ? shown.box : box;
      frame.style.top = 100 * y0 / rows + "%";
      frame.style.height = 100 * (y1 - y0) / rows + "%";
      frame.style.left = 100 * x0 / columns + "%";
      frame.style.width = 100 * (x1 - x0) / columns + "%";
    }
  }

  function setBox(next) {
    box = next;
    showSpectrum();
  }

  for (const map of document.querySelectorAll(".map")) {
    map.style.aspectRatio = String(1 / Number(body.ratio));
    let start = null;
    const place = (event) => {
      const area = map.getBoundingClientRect();
      return [(event.clientY - area.top) / area.height * rows, (event.clientX - area.left) / area.width * columns];
    };
    map.addEventListener("pointerdown", (event) => { start = place(event); map.setPointerCapture(event.pointerId); });
    map.addEventListener("pointerup", (event) => {
      if (!start) return;
      const end = place(event), limits = [rows, columns];
      const [y, x] = [0, 1].map((i) => [start[i], end[i]].sort((a, b) => a - b)
        .map((value, j) => Math.min(Math.max(j ? Math.ceil(value) : Math.floor(value), 0), limits[i])));
      start = null;
      setBox([y[0], y[1], x[0], x[1]]);
    });
  }

  for (const card of cards) {
    const number = Number(card.dataset.number), button = card.querySelector(".keep");
    const note = card.querySelector(".note input");
    button.addEventListener("click", () => change("keep", number, button.getAttribute("aria-pressed") !== "true"));
    button.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const visible = cards.filter((one) => !one.hidden), at = visible.indexOf(card);
      const across = visible.filter((one) => one.offsetTop === visible[0].offsetTop).length;
      const move = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across}[event.key];
      if (move !== undefined) {
        const next = visible[at + move];
        if (next) next.querySelector(".keep").focus();
      } else if (event.key === "k") change("keep", number, true);
      else if (event.key === "d") change("keep", number, false);
      else if (event.key === "n") note.focus();
      else return;
      event.preventDefault();
    });
    let writing = null;
    const write = () => { clearTimeout(writing); change("note", number, note.value); };
    note.addEventListener("input", () => { clearTimeout(writing); writing = setTimeout(write, 500); });
    note.addEventListener("change", write);
    note.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "Escape") button.focus(); });
  }

  $("name").addEventListener("change", showMap);
  $("over").addEventListener("change", showMap);
  $("log").addEventListener("change", drawSpectrum);
  $("filter").addEventListener("change", filter);
  $("save").addEventListener("click", () => change("save"));
  $("whole").addEventListener("click", () => setBox(null));
  $("box").addEventListener("submit", (event) => {
    event.preventDefault();
    setBox(["y0", "y1", "x0", "x1"].map((id) => Number($(id).value)));
  });
  $("element").addEventListener("submit", async (event) => {
    event.preventDefault();
    const symbol = $("symbol").value.trim(), proper = symbol[0].toUpperCase() + symbol.slice(1).toLowerCase();
    await change("add element", proper);
    const added = state.maps.find(([name]) => name.startsWith(proper + "_"));
    if (!added) return;
    $("symbol").value = "";
    $("name").value = added[0];
    showMap();
  });
  $("region").addEventListener("submit", (event) => {
    event.preventDefault();
    const [y0, y1, x0, x1] = shown.box;
    change("add region", `${$("region-name").value}=${y0}:${y1},${x0}:${x1}`);
    $("region-name").value = "";
  });

  // Other tabs, the end of a save and of the reading of raw counts.
  const look = () => ask("state").then(take, () => {});
  look();
  setInterval(look, 2000);
  document.addEventListener("visibilitychange", look);
})();
