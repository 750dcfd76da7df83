"use strict";
(function () {
  const $ = (id) => document.getElementById(id);
  const body = document.body.dataset;
  const rows = Number(body.rows), columns = Number(body.columns);
  const cards = [...document.querySelectorAll(".card")];
  const SVG = "http://www.w3.org/2000/svg";
  // What is drawn, as the server takes it: "box=…" or "lasso=…", nothing for the whole map.
  let state = {version: -1}, drawn = "", shown = null, maps = 0, spectra = 0;

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
    $("score").textContent = state.score ? `Cross-validated error ${state.score} of that of raw counts, fitted to three quarters of them.` : "";
    fillMaps();
    $("save").disabled = !state.unsaved || state.saving;
    $("regions").replaceChildren(...state.regions.map(regionItem));
  }

  const layers = [...document.querySelectorAll("[data-layer]")];

  // Lists of maps, and which line each shows at first: the first one, none, those of the page.
  function fillMaps() {
    const names = state.maps.map(([name]) => name);
    const firsts = layers.map((list) => [list, "none", list.dataset.first]);
    for (const [list, none, first] of [[$("name"), "", names[1] || names[0]], [$("over"), "nothing", ""], ...firsts]) {
      const chosen = list.options.length ? list.value : first;
      if (list.options.length === names.length) continue;
      const options = state.maps.slice(none ? 1 : 0).map(([name, words]) => new Option(words, name));
      if (none) options.unshift(new Option(none, ""));
      list.replaceChildren(...options);
      list.value = names.includes(chosen) ? chosen : none ? "" : first;
    }
  }

  function regionItem(text) {
    const item = document.createElement("li"), remove = document.createElement("button");
    item.append(text + " ");
    const form = text.slice(text.indexOf("=") + 1), ends = form.match(/^\s*(\d+):(\d+),(\d+):(\d+)\s*$/);
    if (ends || /^-?[\d.]+,\S+ /.test(form)) {
      const show = document.createElement("button");
      show.textContent = "Show";
      show.setAttribute("aria-label", "Show region " + text);
      show.addEventListener("click", () => select(ends ? "box=" + ends.slice(1) : "lasso=" + form));
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
    const overlaid = $("kind").value === "overlay";
    const asked = overlaid ? Object.fromEntries(layers.map((list) => [list.dataset.layer, list.value]))
      : {name: $("name").value, over: $("over").value};
    const found = await ask((overlaid ? "overlay?" : "map?") + new URLSearchParams(asked));
    if (number !== maps) return;
    $("one").hidden = $("low").parentElement.hidden = overlaid;
    $("layers").hidden = $("layer-words").hidden = !overlaid;
    $("rebuilt").src = found.rebuilt;
    $("rebuilt").alt = `map of ${found.words}, rebuilt from what is kept`;
    $("raw").hidden = !found.raw;
    if (found.raw) $("raw").src = found.raw;
    $("raw").alt = `map of ${found.words}, raw`;
    $("raw-words").textContent = found.raw ? "raw" : "raw: being read …";
    if (overlaid) {
      $("layer-words").textContent = `Each colour goes from 0 to: ${found.words || "nothing"} net counts per pixel.`;
    } else {
      $("low").textContent = found.legend.low;
      $("high").textContent = `${found.legend.high} ${found.legend.unit}`;
      $("ramp").style.background = `linear-gradient(to right, ${found.legend.gradient})`;
    }
    document.documentElement.dataset.map = version;
  }

  async function showSpectrum() {
    const number = ++spectra, version = state.version;
    const asked = drawn, found = await ask("spectrum?" + asked.replace(/ /g, "+"));
    if (number !== spectra) return;
    shown = {...found, lasso: asked.slice("lasso=".length)};
    const counts = found.raw.reduce((sum, part) => sum + part, 0);
    let name = "Lasso", corners = shown.lasso.split(" ").map((corner) => corner.split(",").reverse());
    if (found.box) {
      const [y0, y1, x0, x1] = found.box;
      ["y0", "y1", "x0", "x1"].forEach((id, i) => { if (document.activeElement !== $(id)) $(id).value = found.box[i]; });
      name = asked ? `Rows ${y0} to ${y1}, columns ${x0} to ${x1}` : "Whole map";
      corners = asked ? cornersOf(found.box) : [];
    }
    $("box-words").textContent = `${name}: ${found.pixels.toLocaleString("en")} pixels, ${Math.round(counts).toLocaleString("en")} counts`;
    drawSpectrum();
    outline(corners);
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

  const cornersOf = ([y0, y1, x0, x1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

  function outline(corners) {
    for (const polygon of document.querySelectorAll(".outline polygon"))
      polygon.setAttribute("points", corners.map((corner) => corner.join(",")).join(" "));
  }

  function select(next) {
    const before = drawn;
    drawn = next;
    // One that holds no pixel changes nothing.
    showSpectrum().catch(() => { drawn = before; showSpectrum(); });
  }

  for (const map of document.querySelectorAll(".map")) {
    map.style.aspectRatio = String(1 / Number(body.ratio));
    // Corners [y, x] of what is being drawn, in pixels.
    let path = null;
    const place = (event) => {
      const area = map.getBoundingClientRect();
      return [(event.clientY - area.top) / area.height * rows, (event.clientX - area.left) / area.width * columns]
        .map((value, i) => Number(Math.min(Math.max(value, 0), [rows, columns][i]).toFixed(2)));
    };
    const boxOf = (ends) => [0, 1].flatMap((i) => ends.map((end) => end[i]).sort((a, b) => a - b)
      .map((value, j) => (j ? Math.ceil(value) : Math.floor(value))));
    const add = (event) => {
      const next = place(event), lasso = $("draw").value === "lasso";
      path = lasso ? [...path, next] : [path[0], next];
      outline(lasso ? path.map(([y, x]) => [x, y]) : cornersOf(boxOf(path)));
      return lasso;
    };
    map.addEventListener("pointerdown", (event) => { path = [place(event)]; map.setPointerCapture(event.pointerId); });
    map.addEventListener("pointermove", (event) => { if (path) add(event); });
    map.addEventListener("pointerup", (event) => {
      if (!path) return;
      const lasso = add(event);
      // A browser tells of far more places than a region needs: 500 at most.
      const some = path.filter((_, i) => i % Math.ceil(path.length / 500) === 0);
      if (!lasso) select("box=" + boxOf(path));
      else if (some.length < 3) showSpectrum();
      else select("lasso=" + some.map((corner) => corner.join(",")).join(" "));
      path = null;
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

  for (const list of [$("kind"), $("name"), $("over"), ...layers]) list.addEventListener("change", showMap);
  $("log").addEventListener("change", drawSpectrum);
  $("filter").addEventListener("change", filter);
  $("save").addEventListener("click", () => change("save"));
  $("whole").addEventListener("click", () => select(""));
  $("box").addEventListener("submit", (event) => {
    event.preventDefault();
    select("box=" + ["y0", "y1", "x0", "x1"].map((id) => $(id).value));
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
    const [y0, y1, x0, x1] = shown.box || [];
    const form = shown.box ? `${y0}:${y1},${x0}:${x1}` : shown.lasso;
    change("add region", `${$("region-name").value}=${form}`);
    $("region-name").value = "";
  });

  // Other tabs, the end of a save and of the reading of raw counts.
  const look = () => ask("state").then(take, () => {});
  look();
  setInterval(look, 2000);
  document.addEventListener("visibilitychange", look);
})();
