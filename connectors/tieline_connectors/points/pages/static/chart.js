// The drawing of a chart. The page works without it: as a table.
"use strict";

(() => {
  const holder = document.getElementById("chart");
  if (!holder || !window.uPlot) return;
  const state = document.getElementById("chart-state");
  const readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("aria-hidden", "true");
  holder.before(readout);
  const DASHES = [[], [8, 4], [2, 3], [9, 3, 2, 3]];
  const MAX_AXES = 2;
  let view = new URLSearchParams(location.search); // the complete view, as in the address
  const earlier = []; // views to return to
  let data = null;
  let shown = []; // the series that are drawn
  let marks = [];
  let plot = null;
  let request = 0;
  let channel = "";
  let loadedAt = 0;
  let refill = 0; // the timer of the load that closes the gap before the first live value

  const css = (name) => getComputedStyle(holder).getPropertyValue(name).trim();
  const isLive = () => data !== null && data.live;

  // Loading

  async function load() {
    const mine = ++request;
    clearTimeout(refill);
    const query = new URLSearchParams(view);
    query.set("n", String(Math.max(10, Math.round(holder.clientWidth))));
    try {
      const answer = await fetch(`${holder.dataset.points}?${query}`, { headers: { Accept: "application/json" } });
      if (mine !== request) return;
      if (!answer.ok) throw new Error(await problemOf(answer));
      data = await answer.json();
    } catch (error) {
      if (mine === request) state.textContent = `The values cannot be loaded: ${error.message}`;
      return;
    }
    loadedAt = Date.now();
    for (const each of data.series) each.stored = each.x.length;
    draw();
    if (data.channel !== channel) {
      channel = data.channel;
      tieline.on(channel, append);
    }
    loadMarks(query, mine);
  }

  async function loadMarks(query, mine) {
    try {
      const answer = await fetch(`${holder.dataset.marks}?${query}`);
      if (mine !== request || !answer.ok) return;
      marks = await answer.json();
      if (plot) plot.redraw(false);
    } catch {
      marks = []; // the chart is complete without them
    }
  }

  async function problemOf(answer) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return page.querySelector("[role=alert]")?.textContent || `the worker answered ${answer.status}`;
  }

  // Drawing

  function columns() {
    const tables = shown.map((each) => [each.x, each.y, each.low, each.high]);
    return tables.length ? uPlot.join(tables) : [[]];
  }

  function say() {
    const units = new Set(shown.map((each) => each.unit));
    const texts = data.series.filter((each) => each.problem).map((each) => `${each.label}: ${each.problem}.`);
    const left = data.series.filter((each) => !shown.includes(each) && !each.problem);
    for (const each of left) texts.push(`${each.label} (${each.unit || "no unit"}) is not drawn: a chart has at most two axes, here ${[...units].map((unit) => unit || "no unit").join(" and ")}.`);
    for (const each of data.series) {
      if (each.skipped) texts.push(`${each.label} has values that are not numbers; the table shows them.`);
      else if (!each.x.length && !each.problem) texts.push(`${each.label} has no number in this range.`);
    }
    state.textContent = texts.join(" ");
  }

  function draw() {
    const units = [...new Set(data.series.filter((each) => !each.problem).map((each) => each.unit))].slice(0, MAX_AXES);
    shown = data.series.filter((each) => !each.problem && units.includes(each.unit));
    say();
    if (plot) plot.destroy();
    plot = new uPlot(options(units), columns(), holder);
  }

  function options(units) {
    const text = css("--muted"), line = css("--line");
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: text, font, ticks: { stroke: line }, grid: { stroke: line, width: 1 } };
    const series = [{}];
    const bands = [];
    for (const each of shown) {
      const number = data.series.indexOf(each);
      const colour = css(`--series-${number}`);
      const scale = `unit ${units.indexOf(each.unit)}`;
      const common = { scale, points: { show: false }, spanGaps: false };
      const edge = { ...common, stroke: `${colour}88`, width: each.band ? 1 : 0, show: each.band };
      const paths = each.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
      series.push({
        ...common, label: each.label, stroke: colour, width: 1.6, dash: DASHES[number % DASHES.length], paths,
        points: { show: true, size: 5, filter: isolated },
      }, { ...edge, paths }, { ...edge, paths });
      if (each.band) bands.push({ series: [series.length - 1, series.length - 2], fill: `${colour}30` });
    }
    return {
      width: holder.clientWidth, height: Math.max(240, Math.min(460, Math.round(window.innerHeight * 0.5))),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), tieline.zone),
      legend: { show: false },
      cursor: {
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { back(); return null; } },
      },
      scales: { x: { time: true, range: () => bounds() } },
      axes: [
        { ...axis, values: timeLabels, space: 70 },
        ...units.map((unit, number) => ({
          ...axis, scale: `unit ${number}`, side: number ? 1 : 3, label: unit || "no unit", labelFont: font, labelSize: 20,
          size: 58, grid: number ? { show: false } : axis.grid,
        })),
      ],
      series, bands,
      hooks: { setSelect: [selected], setCursor: [describe], draw: [drawMarks] },
    };
  }

  // A value without neighbours has no line: it is drawn as a dot.
  function isolated(u, index) {
    const values = u.data[index];
    const found = [];
    for (let i = 0; i < values.length; i++) {
      if (values[i] == null) continue;
      let before = i - 1, after = i + 1;
      while (before >= 0 && values[before] === undefined) before--;
      while (after < values.length && values[after] === undefined) after++;
      if ((before < 0 || values[before] === null) && (after >= values.length || values[after] === null)) found.push(i);
    }
    return found;
  }

  function bounds() {
    if (!isLive()) return [data.start, data.end];
    const now = Date.now() / 1000;
    const length = data.end - data.start;
    return /[smhd]$/.test(view.get("from") || "1h") ? [now - length, now] : [data.start, now];
  }

  function timeLabels(u, splits, number, space, step) {
    const formats = step >= 86400 * 27 ? { month: "short", year: "numeric" }
      : step >= 86400 ? { day: "numeric", month: "short" }
      : step >= 60 ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }
      : { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
    const label = new Intl.DateTimeFormat("en-GB", { timeZone: tieline.zone, ...formats });
    const day = new Intl.DateTimeFormat("en-GB", { timeZone: tieline.zone, day: "numeric", month: "short" });
    let before = "";
    return splits.map((seconds) => {
      const date = day.format(seconds * 1000);
      const text = label.format(seconds * 1000) + (step < 86400 && date !== before ? `\n${date}` : "");
      before = date;
      return text;
    });
  }

  function drawMarks(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = css("--text");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const mark of marks) {
      const x = u.valToPos(mark.time, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      const size = 6 * devicePixelRatio;
      ctx.moveTo(x - size, bbox.top);
      ctx.lineTo(x + size, bbox.top);
      ctx.lineTo(x, bbox.top + size);
      ctx.fill();
    }
    ctx.restore();
  }

  function describe(u) {
    const index = u.cursor.idx;
    if (index == null || u.cursor.left < 0) {
      readout.textContent = "";
      return;
    }
    const time = u.data[0][index];
    const texts = shown.map((each, number) => {
      let at = index;
      while (at >= 0 && u.data[1 + number * 3][at] === undefined) at--;
      const [value, low, high] = [1, 2, 3].map((column) => u.data[column + number * 3][at]);
      if (value == null) return `${each.label} –`;
      return `${each.label} ${short(value)}${low !== high ? ` (${short(low)} to ${short(high)})` : ""} ${each.unit}`.trimEnd();
    });
    const near = marks.filter((mark) => Math.abs(u.valToPos(mark.time, "x") - u.cursor.left) < 8);
    readout.textContent = [tieline.moment(time * 1000), ...texts, ...near.map((mark) => `▼ ${mark.text}`)].join(" · ");
  }
  const short = (value) => Number(value.toPrecision(6)).toString();

  // Zoom and live values

  function selected(u) {
    if (u.select.width < 4) return;
    const from = u.posToVal(u.select.left, "x");
    const to = u.posToVal(u.select.left + u.select.width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    if (to - from < 1) return;
    earlier.push(new URLSearchParams(view));
    view.set("from", new Date(from * 1000).toISOString());
    view.set("to", new Date(to * 1000).toISOString());
    changed();
  }

  function back() {
    if (!earlier.length) return;
    view = earlier.pop();
    changed();
  }

  function changed() {
    refill = 0;
    history.replaceState(null, "", `?${view}`);
    load();
    refreshLinks();
  }

  // The links and fields around the drawing, as the server writes them for this view.
  async function refreshLinks() {
    const wanted = String(view);
    const answer = await fetch(`${location.pathname}?${wanted}`).catch(() => null);
    if (!answer || !answer.ok || wanted !== String(view)) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["chart-ranges", "chart-tools"]) document.getElementById(id).replaceWith(page.getElementById(id));
  }

  function append(values) {
    if (!isLive() || !plot) return;
    for (const each of shown) {
      for (const [time, value] of values[each.id] || []) {
        const last = each.x.length ? each.x[each.x.length - 1] : -Infinity;
        if (value === null || time <= last) continue;
        if (each.gap && time - last > each.gap && each.x.length) {
          if (each.x.length === each.stored) closeGap();
          add(each, last + each.gap / 2, null);
        }
        add(each, time, value);
      }
      const [start] = bounds();
      let old = each.x.findIndex((time) => time >= start) - 1;
      if (old > 0) for (const column of [each.x, each.y, each.low, each.high]) column.splice(0, old);
    }
    say();
    plot.setData(columns());
  }

  // The values between the last stored one and the first live one are in the store soon. If they are not, it is a gap.
  function closeGap() {
    if (!refill) refill = setTimeout(load, 10000);
  }

  function add(each, time, value) {
    each.x.push(time);
    for (const column of [each.y, each.low, each.high]) column.push(value);
  }

  setInterval(() => {
    if (!isLive() || !plot || document.hidden) return;
    if (Date.now() - loadedAt > Math.max(60, (data.end - data.start) / 100) * 1000) load();
    else plot.setData(columns()); // moves the right edge
  }, 5000);
  tieline.onReconnect.push(load);
  const redraw = () => data && draw();
  document.addEventListener("tieline:theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = holder.clientWidth;
  new ResizeObserver(() => {
    if (holder.clientWidth === width || !plot) return;
    width = holder.clientWidth;
    plot.setSize({ width, height: plot.height });
  }).observe(holder);
  load();
})();
