// Charts by BokehJS, which starts after the list is there. What they say stands in tables as well.
const { colours, charts } = read("charts");
let loaded = false;
const near = new Set();
const place = (name) => document.querySelector(`[data-chart="${name}"]`);

function load() {
  if (loaded) return;
  const script = document.createElement("script");  // the page's policy knows this very text
  script.textContent = $("plots").textContent;
  document.head.append(script);
  Bokeh.set_log_level("error");
  loaded = true;
}

// with the page's colours as they are now, light or dark
function inColour(chart) {
  const style = getComputedStyle(document.documentElement);
  let text = JSON.stringify(chart);
  for (const [name, stands] of Object.entries(colours)) text = text.replaceAll(`"${stands}"`, JSON.stringify(style.getPropertyValue(name).trim()));
  return JSON.parse(text);
}

function draw(name) {
  const here = place(name);
  if (!here) return;
  load();
  near.add(name);
  for (const old of Bokeh.index.roots ?? []) if (old.el?.parentElement === here) old.remove();
  here.replaceChildren();
  Bokeh.embed.embed_item(inColour(charts[name]), here.id);
}
const redraw = () => near.forEach(draw);

// those that come into view are drawn, one at a time, so that the page answers in between; then what is printed
function startCharts() {
  const waiting = [];
  let busy = false;
  const next = () => {
    const name = waiting.shift();
    busy = name !== undefined;
    if (busy) setTimeout(() => { draw(name); next(); });
    else document.documentElement.dataset.drawn ??= String(Math.round(performance.now()));
  };
  const want = (name) => {
    if (near.has(name)) return;
    near.add(name);
    waiting.push(name);
  };
  const watch = new IntersectionObserver((seen) => {
    seen.filter((one) => one.isIntersecting).forEach(({ target }) => { want(target.dataset.chart); watch.unobserve(target); });
    if (!busy) next();
  }, { rootMargin: "300px" });
  for (const name of Object.keys(charts)) watch.observe(place(name));
  setTimeout(() => {
    Object.keys(charts).filter((name) => place(name).closest("#overview, #causes")).forEach(want);
    if (!busy) next();
  }, 1500);
}

// #2f66a9, however a colour is written
function plain(paint) {
  const parts = /^rgba?\((\d+), ?(\d+), ?(\d+)/.exec(paint ?? "");
  return parts ? `#${parts.slice(1, 4).map((part) => Number(part).toString(16).padStart(2, "0")).join("")}` : paint?.toLowerCase();
}

// Paper is light, and of another width: for it each chart is copied as one picture that scales, in the page's own colours
function copyForPaper() {
  const style = getComputedStyle(document.documentElement);
  const names = new Map(Object.keys(colours).map((name) => [style.getPropertyValue(name).trim().toLowerCase(), name]));
  for (const name of near) {
    const layers = [];
    const search = (root) => root.querySelectorAll("*").forEach((one) => {
      if (one.localName === "svg") layers.push(one.cloneNode(true));
      if (one.shadowRoot) search(one.shadowRoot);
    });
    search(place(name));
    const [copy, ...more] = layers;
    if (!copy) continue;
    for (const layer of more) copy.append(...layer.children);
    copy.setAttribute("viewBox", `0 0 ${copy.getAttribute("width")} ${copy.getAttribute("height")}`);
    for (const part of copy.querySelectorAll("*")) {
      for (const paint of ["fill", "stroke"]) {
        const known = names.get(plain(part.getAttribute(paint)));
        if (known) part.style[paint] = `var(${known})`;
      }
    }
    place(name).after(element("div", { class: "paper", "aria-hidden": "true" }, copy));
  }
}
const clearPaper = () => document.querySelectorAll(".paper").forEach((one) => one.remove());
