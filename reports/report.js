"use strict";
// Comfort only: the verdict and the worst cases are readable without it. Reads the page's own
// data and puts it into the page as text, never as markup; loads nothing, sends nothing.
(() => {
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
  const data = document.getElementById("data");
  if (!data) return;
  const { cases, metrics, gates, slices, sets, compared, more } = JSON.parse(data.textContent);
  const [ID, MEETING, SLICES, METRICS, BEFORE, AFTER, FLAKY, OUTCOME, INPUT, OLD, NEW,
    SAID_OLD, SAID_NEW] = Array(13).keys();
  const PAGE = 25, TOKENS = 1500, SAME = 1e-9;
  const at = (id) => document.getElementById(id);
  let words = null; // made once the page stands, or by the first search
  const searchable = () => words ??= cases.map((one) => [one[ID], sets[one[MEETING]],
    one[OUTCOME], one[INPUT], one[OLD], one[NEW], one[SAID_OLD], one[SAID_NEW]].join("\n").toLowerCase());
  const START = { q: "", show: "all", metric: "", set: "", slice: "", sort: "change", page: "1", open: "" };
  let state = { ...START };
  let found = [];

  // --- what is shown of a case: one metric, and how it changed ---
  const isGate = new Set(gates);
  const delta = (one, n) => {
    const before = compared ? one[BEFORE][n] : 1, after = one[AFTER][n];
    return before === null || after === null ? null : after - before;
  };
  const telling = (one) => {
    // The metric asked for; else the largest loss, or gain, of what gates before all else.
    const wanted = state.metric === "" ? -1 : Number(state.metric);
    if (wanted >= 0) return one[METRICS].indexOf(wanted);
    const sign = state.show === "better" ? -1 : 1;
    let best = -1, least = Infinity;
    one[METRICS].forEach((metric, n) => {
      const change = delta(one, n);
      if (change === null) return;
      const rank = sign * change - (isGate.has(metric) && sign * change < 0 ? 2 : 0);
      if (rank < least) [best, least] = [n, rank];
    });
    return best;
  };
  const SHOW = {
    all: ["All cases", () => true],
    worse: [compared ? "Got worse" : "Below full score", (one, change) => change < -SAME],
    better: ["Got better", (one, change) => change > SAME],
    same: [compared ? "Unchanged" : "Full score", (one, change) => change !== null && Math.abs(change) <= SAME],
    none: [compared ? "Could not be compared" : "Without a score", (one, change) => change === null],
    failed: ["Call or scorer failed", (one) => one[OUTCOME] !== ""],
    flaky: ["Flaky over trials", (one) => one[FLAKY] === 1],
  };
  if (!compared) delete SHOW.better;

  // --- finding ---
  const find = () => {
    const query = state.q.trim().toLowerCase();
    const slice = state.slice === "" ? -1 : Number(state.slice);
    const [, fits] = SHOW[state.show] || SHOW.all;
    found = [];
    cases.forEach((one, n) => {
      if (state.set !== "" && sets[one[MEETING]] !== state.set) return;
      if (slice >= 0 && !one[SLICES].includes(slice)) return;
      if (query && !searchable()[n].includes(query)) return;
      const metric = telling(one);
      if (state.metric !== "" && metric < 0) return;
      const change = metric < 0 ? null : delta(one, metric);
      if (fits(one, change)) found.push({ one, n, metric, change });
    });
    const last = (hit) => (hit.change === null ? Infinity : hit.change);
    if (state.sort === "id") found.sort((a, b) => (a.one[ID] < b.one[ID] ? -1 : a.one[ID] > b.one[ID] ? 1 : a.n - b.n));
    else if (state.sort === "gain") found.sort((a, b) => (b.change ?? -Infinity) - (a.change ?? -Infinity) || a.n - b.n);
    else found.sort((a, b) => last(a) - last(b) || a.n - b.n);
  };

  // --- the page's elements; every text is set as text ---
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
  const points = (change) => {
    if (change === null) return "–";
    const rounded = Math.round(1000 * change) / 10;
    return (rounded < 0 ? "−" : rounded > 0 ? "+" : "±") + Math.abs(rounded).toFixed(1);
  };
  const cell = (kind, name = "") =>
    make("td", null, { role: "cell", class: kind, ...(name && { "data-name": name }) });

  const row = ({ one, n, metric, change }) => {
    const line = make("tr", null, { role: "row" });
    const head = make("th", null, { role: "rowheader", scope: "row" });
    const button = make("button", one[ID], { type: "button", class: "id", "aria-expanded": "false" });
    head.append(button);
    const where = cell("soft all");
    where.append(make("bdi", [sets[one[MEETING]], ...one[SLICES].map((s) => slices[s].split("=").slice(1).join("="))].join(", ")));
    const glance = cell("glance all");
    glance.append(make("bdi", (one[INPUT] || "").slice(0, 160)));
    const told = cell("num", "metric");
    if (metric >= 0) {
      told.append(make("bdi", metrics[one[METRICS][metric]]),
        make("span", compared ? ` ${score(one[BEFORE][metric])} → ${score(one[AFTER][metric])}`
          : ` ${score(one[AFTER][metric])}`, { class: "soft" }));
    } else told.append(make("span", one[OUTCOME] || "no score", { class: "soft" }));
    const moved = cell("r num " + (change < -SAME ? "fell" : change > SAME ? "rose" : ""), "change");
    moved.textContent = points(change);
    line.append(head, where, glance, told, moved);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      state.open = open ? "" : String(n);
      draw();
      at("rows").querySelector(`[data-n="${n}"]`)?.focus();
    });
    button.dataset.n = n;
    if (state.open === String(n)) {
      button.setAttribute("aria-expanded", "true");
      return [line, detail(one)];
    }
    return [line];
  };

  const detail = (one) => {
    const line = make("tr", null, { role: "row", class: "detail" });
    const whole = make("td", null, { role: "cell", colspan: "5" });
    const body = make("div", null, { class: "body" });
    const [before, after] = diff(one[OLD], one[NEW]);
    const part = (name, pieces, kind, wide) => {
      const block = make("div", null, wide ? { class: "all" } : {});
      const text = make("pre", null, { dir: "auto", tabindex: "0" });
      for (const [piece, marked] of pieces) {
        text.append(marked ? make("mark", piece, { class: kind }) : document.createTextNode(piece));
      }
      block.append(make("h4", name), text);
      body.append(block);
    };
    if (one[INPUT] !== null) part("Input", [[one[INPUT], false]], "", true);
    if (compared) part("Baseline's answer", before, "was", false);
    part(compared ? "Candidate's answer" : "Answer", after, "now", !compared);
    if (one[SAID_OLD]) part("Said of the baseline", [[one[SAID_OLD], false]], "", false);
    if (one[SAID_NEW]) part(compared ? "Said of the candidate" : "What the scorer said", [[one[SAID_NEW], false]], "", !one[SAID_OLD]);
    const list = make("ul", null, { class: "all scores num" });
    one[METRICS].forEach((metric, n) => {
      const line = make("li", null);
      line.append(make("bdi", metrics[metric]),
        make("span", compared ? ` ${score(one[BEFORE][n])} → ${score(one[AFTER][n])}` : ` ${score(one[AFTER][n])}`));
      list.append(line);
    });
    body.append(list);
    whole.append(body);
    line.append(whole);
    return line;
  };

  // --- words that differ: the longest common run of tokens, as in the cases above ---
  const diff = (before, after) => {
    const plain = [[[before ?? "no answer", false]], [[after ?? "no answer", false]]];
    if (before === null || after === null || before === after) return plain;
    const cut = (text) => text.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) || [];
    const a = cut(before), b = cut(after);
    if (Math.max(a.length, b.length) > TOKENS) return plain;
    const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        long[i][j] = a[i] === b[j] ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
      }
    }
    if ((2 * long[0][0]) / (a.length + b.length) < 0.35) return plain;
    const left = [], right = [];
    const add = (to, text, marked) => {
      const mark = marked && text.trim() !== "";
      if (to.length && to[to.length - 1][1] === mark) to[to.length - 1][0] += text;
      else to.push([text, mark]);
    };
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { add(left, a[i++], false); add(right, b[j++], false); }
      else if (j >= b.length || (i < a.length && long[i + 1][j] >= long[i][j + 1])) add(left, a[i++], true);
      else add(right, b[j++], true);
    }
    return [left, right];
  };

  // --- showing; the state stands in the address ---
  const pages = () => Math.max(1, Math.ceil(found.length / PAGE));
  const draw = () => {
    const page = Math.min(Math.max(1, Number(state.page) || 1), pages());
    state.page = String(page);
    const first = (page - 1) * PAGE;
    at("rows").replaceChildren(...found.slice(first, first + PAGE).flatMap(row));
    const total = cases.length + more;
    at("told").textContent = found.length
      ? `${(first + 1).toLocaleString("en")} to ${Math.min(first + PAGE, found.length).toLocaleString("en")} of ${found.length.toLocaleString("en")}`
        + (found.length < total ? ` found among ${total.toLocaleString("en")}` : "")
      : `none of ${total.toLocaleString("en")} cases`;
    at("before").hidden = at("after").hidden = pages() === 1;
    at("before").disabled = page <= 1;
    at("after").disabled = page >= pages();
    for (const button of document.querySelectorAll("[data-sort]")) {
      const mine = button.dataset.sort === (state.sort === "gain" ? "change" : state.sort);
      const way = !mine ? "none" : state.sort === "gain" ? "descending" : "ascending";
      button.closest("th").setAttribute("aria-sort", way);
    }
    const kept = Object.entries(state).filter(([name, value]) => value !== START[name]);
    const here = location.hash.includes("=");
    if (kept.length) history.replaceState(null, "", "#" + new URLSearchParams(kept));
    else if (here) history.replaceState(null, "", "#all");
  };
  const change = (changes) => {
    state = { ...state, page: "1", open: "", ...changes };
    find();
    draw();
  };
  const restore = () => {
    if (!location.hash.includes("=")) return false;
    const kept = new URLSearchParams(location.hash.slice(1));
    state = { ...START };
    for (const name of Object.keys(START)) if (kept.has(name)) state[name] = kept.get(name);
    for (const name of ["show", "metric", "set", "slice"]) {
      at(name).value = state[name];
      if (at(name).value !== state[name]) at(name).value = state[name] = START[name];
    }
    at("find").value = state.q;
    find();
    const place = found.findIndex(({ n }) => String(n) === state.open);
    if (place >= 0 && !kept.has("page")) state.page = String(1 + Math.floor(place / PAGE));
    draw();
    return true;
  };

  const options = (name, entries) => {
    at(name).append(...entries.map(([value, text]) => make("option", text, { value })));
    at(name).hidden = entries.length <= (name === "show" ? 1 : 2);
    at(name).addEventListener("change", () => change({ [name]: at(name).value }));
  };
  options("show", Object.entries(SHOW).map(([value, [text]]) => [value, text]));
  options("metric", [["", "Any metric"], ...metrics.map((text, n) => [String(n), text])]);
  options("set", [["", "All golden sets"], ...[...new Set(sets)].map((text) => [text, text])]);
  options("slice", [["", "All slices"], ...slices.map((text, n) => [String(n), text])
    .sort((a, b) => (a[1] < b[1] ? -1 : 1))]);
  at("find").addEventListener("input", () => change({ q: at("find").value }));
  const turn = (by) => {
    state.page = String(Number(state.page) + by);
    state.open = "";
    draw();
  };
  at("before").addEventListener("click", () => turn(-1));
  at("after").addEventListener("click", () => turn(1));
  for (const button of document.querySelectorAll("[data-sort]")) {
    const name = button.dataset.sort;
    button.addEventListener("click", () =>
      change({ sort: name === "change" && state.sort === "change" ? "gain" : name }));
  }
  addEventListener("hashchange", () => { if (restore()) at("all").scrollIntoView(); });
  at("all").hidden = false;
  if (restore()) at("all").scrollIntoView();
  else change({});
  setTimeout(searchable, 50);
})();
