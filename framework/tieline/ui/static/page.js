// Every page: the live stream, relative times, theme and time zone. A page works without this script.
"use strict";

const root = document.documentElement;
const base = root.dataset.base;
const listeners = new Map(); // channel text -> functions that get an update's data
const tieline = (window.tieline = {
  zone: root.dataset.zone,
  // Call back with the data of a channel; the same text as in data-channel.
  on(channel, callback) {
    listeners.set(channel, [...(listeners.get(channel) || []), callback]);
    connect();
  },
  onReconnect: [], // functions to call when a stream is open again
});

// Times

function span(seconds) {
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
  const [, unit, name] = steps.find(([limit]) => seconds < limit);
  return `${Math.floor(Math.max(0, seconds) / unit)} ${name}`;
}

tieline.moment = (ms) => new Intl.DateTimeFormat("sv-SE", {
  timeZone: tieline.zone, dateStyle: "short", timeStyle: "medium",
}).format(ms) + " " + tieline.zone;

function showTimes(parent) {
  for (const time of parent.querySelectorAll("time[data-ms]")) {
    const ms = Number(time.dataset.ms);
    const age = (Date.now() - ms) / 1000;
    const text = age > -1 ? `${span(age)} ago` : `in ${span(-age)}`;
    if (time.textContent !== text) time.textContent = text;
    if (!time.dataset.titled) {
      time.title = tieline.moment(ms);
      time.dataset.titled = "yes";
    }
  }
}
setInterval(() => showTimes(document), 1000);

// The stream: one for each tab

let source = null;
let lostAt = null;
let lastBoot = root.dataset.boot;
let lastBeat = Date.now();
let scheduled = 0;
const notice = document.getElementById("connection");

function channels() {
  const named = [...document.querySelectorAll("[data-channel]")].map((element) => element.dataset.channel);
  return [...new Set([...named, ...listeners.keys()])];
}

function connect() {
  if (scheduled) return;
  scheduled = setTimeout(() => {
    scheduled = 0;
    open();
  }, 50);
}
tieline.connect = connect; // after data-channel attributes have changed

function open() {
  if (source) source.close();
  const wanted = channels();
  if (!wanted.length) return;
  source = new EventSource(`${base}/events?` + wanted.map((each) => "channel=" + encodeURIComponent(each)).join("&"));
  source.addEventListener("hello", (event) => {
    lastBeat = Date.now();
    const boot = JSON.parse(event.data);
    if (boot !== lastBoot) say(`The worker was restarted; connected again at ${tieline.moment(Date.now())}.`, 15000);
    else if (lostAt) say(`Connected again at ${tieline.moment(Date.now())}.`, 8000);
    if (boot !== lastBoot || lostAt) for (const callback of tieline.onReconnect) callback();
    lastBoot = boot;
    lostAt = null;
  });
  source.onmessage = (event) => {
    lastBeat = Date.now();
    apply(JSON.parse(event.data));
  };
  source.onerror = lost;
}

async function lost() {
  if (!lostAt) lostAt = Date.now();
  say(`The connection to the worker is lost since ${tieline.moment(lostAt)}. Values on this page are old. Retrying.`);
  source.close();
  setTimeout(retry, 1000);
}

async function retry() {
  try {
    const answer = await fetch(`${base}/session`, { cache: "no-store" });
    if (answer.status === 401) {
      location.href = `${base}/sign-in?to=` + encodeURIComponent(location.pathname + location.search);
      return;
    }
    open();
  } catch {
    setTimeout(retry, 1000);
  }
}

let hideNotice = 0;
function say(text, hideAfter) {
  clearTimeout(hideNotice);
  notice.textContent = text;
  notice.hidden = false;
  if (hideAfter) hideNotice = setTimeout(() => (notice.hidden = true), hideAfter);
}

function apply(update) {
  for (const [id, html] of Object.entries(update.fragments)) {
    const element = document.getElementById(id);
    // The server has rendered and escaped it; a form in use is left alone.
    if (!element || element.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
    if (element.innerHTML === html) continue;
    replace(element, html);
    if (window.htmx) window.htmx.process(element);
    showTimes(element);
  }
  if (update.data !== null) for (const callback of listeners.get(update.channel) || []) callback(update.data);
}

// Replace the content; the keyboard's focus and what was unfolded stay.
const focusable = "a[href], button, summary, [tabindex]";
function identity(element) {
  return ["href", "name", "value", "id"].map((name) => element.getAttribute(name)).join("\n") + element.tagName;
}
function replace(element, html) {
  const active = element.contains(document.activeElement) && element !== document.activeElement ? identity(document.activeElement) : null;
  const unfolded = [...element.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
  element.innerHTML = html;
  for (const summary of element.querySelectorAll("details > summary")) {
    if (unfolded.includes(summary.textContent)) summary.parentElement.open = true;
  }
  if (active === null) return;
  const same = [...element.querySelectorAll(focusable)].find((each) => identity(each) === active);
  if (same) same.focus({ preventScroll: true });
}

// A laptop that has slept: the stream may look open for minutes.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && source && Date.now() - lastBeat > 25000) lost();
});
setInterval(() => {
  const now = Date.now();
  if (now - tick > 20000 && source) lost();
  tick = now;
}, 2000);
let tick = Date.now();

// Theme and time zone

const button = document.getElementById("theme");
function dark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function cookie(name, value) { // names of zones and themes need no encoding
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}
button.hidden = false;
function label() {
  button.textContent = dark() ? "Light" : "Dark";
}
label();
button.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  cookie("tieline-theme", root.dataset.theme);
  label();
  document.dispatchEvent(new Event("tieline:theme"));
});
cookie("tieline-time_zone", Intl.DateTimeFormat().resolvedOptions().timeZone);
const zones = document.getElementById("zones");
if (zones) {
  for (const zone of [Intl.DateTimeFormat().resolvedOptions().timeZone, ...(Intl.supportedValuesOf?.("timeZone") || [])]) {
    const option = document.createElement("option");
    option.value = zone;
    zones.append(option);
  }
}
for (const field of document.querySelectorAll("[data-here]")) field.value = location.pathname + location.search;
document.addEventListener("htmx:afterSettle", () => {
  showTimes(document);
  for (const field of document.querySelectorAll("[data-here]")) field.value = location.pathname + location.search;
  connect();
});
showTimes(document);
connect();
