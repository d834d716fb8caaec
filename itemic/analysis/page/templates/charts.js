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
const drawAll = () => Object.keys(charts).forEach(draw);
const redraw = () => near.forEach(draw);

// those that come into view are drawn, one at a time, so that the page answers in between
function startCharts() {
  const waiting = [];
  const next = () => {
    const name = waiting.shift();
    if (name) setTimeout(() => { draw(name); next(); });
    else document.documentElement.dataset.drawn ??= String(Math.round(performance.now()));
  };
  const watch = new IntersectionObserver((seen) => {
    const idle = !waiting.length;
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      if (!near.has(target.dataset.chart)) waiting.push(target.dataset.chart);
      near.add(target.dataset.chart);
      watch.unobserve(target);
    }
    if (idle) setTimeout(next);
  }, { rootMargin: "300px" });
  for (const name of Object.keys(charts)) watch.observe(place(name));
}
