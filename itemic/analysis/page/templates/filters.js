// What of the cases is looked at: a form of plain controls, and one mark for each case.
const form = $("filters");
const kept = new Uint8Array(count).fill(1);
const lowerTitles = once(() => items.title.map((title, item) => `${title}\n${items.id[item]}`.toLowerCase()));
const lowerUsers = once(() => cases.user.map((user) => user.toLowerCase()));
const showsAll = (found, causes) => causes.every((cause) => found.some((one) => one[0] === cause));

const SEARCHED = {
  anywhere: (i, hit) => hit.has(cases.target[i]) || cases.listed[i].some((x) => hit.has(x)) || cases.history[i].some((x) => hit.has(x)),
  target: (i, hit) => hit.has(cases.target[i]),
  listed: (i, hit) => cases.listed[i].some((x) => hit.has(x)),
  history: (i, hit) => cases.history[i].some((x) => hit.has(x)),
};

function asked() {
  const value = (name) => form.elements[name].value.trim();
  const bound = (name, none) => (value(name) === "" || Number.isNaN(Number(value(name))) ? none : Number(value(name)));
  return {
    status: value("status"),
    causes: [...form.querySelectorAll("input[name=cause]:checked")].map((box) => Number(box.value)),
    category: value("category").toLowerCase(),
    popular: [bound("popular-from", -Infinity), bound("popular-to", Infinity)],
    length: [bound("length-from", -Infinity), bound("length-to", Infinity)],
    words: value("words").toLowerCase(),
    where: value("where"),
  };
}

// marks the cases that are asked for, and counts them: all in all, and by cause
function choose() {
  const ask = asked();
  const within = (x, [low, high]) => x >= low && x <= high;
  const hit = new Set();
  if (ask.words) lowerTitles().forEach((title, item) => title.includes(ask.words) && hit.add(item));
  const categories = new Set();
  if (ask.category) data.categories.forEach((name, i) => name.toLowerCase().includes(ask.category) && categories.add(i));
  const byUser = ask.where === "anywhere" || ask.where === "user";
  const byItem = SEARCHED[ask.where] ?? (() => false);
  const byCause = new Uint32Array(data.causes.length);
  let all = 0, bad = 0;
  for (let i = 0; i < count; i++) {
    const target = cases.target[i];
    kept[i] = (ask.status === "all" || (ask.status === "bad") === Boolean(cases.bad[i]))
      && (!ask.category || categories.has(items.category[target]))
      && within(popularity(target), ask.popular) && within(cases.length[i], ask.length)
      && showsAll(cases.causes[i], ask.causes)
      && (!ask.words || (byUser && lowerUsers()[i].includes(ask.words)) || byItem(i, hit)) ? 1 : 0;
    if (!kept[i]) continue;
    all++;
    bad += cases.bad[i];
    for (const [cause] of cases.causes[i]) byCause[cause]++;
  }
  return { all, bad, byCause };
}

function tell({ all, bad, byCause }) {
  const rest = all === count ? "" : ` of ${count.toLocaleString("en")}`;
  $("found").textContent = `${all.toLocaleString("en")}${rest} cases, ${bad.toLocaleString("en")} of them bad`;
  for (const box of form.querySelectorAll("input[name=cause]")) {
    const here = byCause[Number(box.value)];
    box.parentElement.querySelector("small").textContent = here.toLocaleString("en");
    box.parentElement.classList.toggle("none", !here && !box.checked);
  }
}

// fills in what the form offers: causes by how many cases show them, categories, and how far the ranges go
function furnish() {
  const often = new Uint32Array(data.causes.length);
  for (const found of cases.causes) for (const [cause] of found) often[cause]++;
  const order = data.causes.map((_, cause) => cause).filter((cause) => often[cause]).sort((a, b) => often[b] - often[a]);
  $("chips").append(...order.map((cause) => element("label", { class: "chip", title: data.causes[cause].title },
    element("input", { type: "checkbox", name: "cause", value: cause }), element("span", null, data.causes[cause].title), element("small"))));
  $("chips").closest("fieldset").hidden = !order.length;
  const named = new Map();
  for (const target of cases.target) named.set(items.category[target], (named.get(items.category[target]) ?? 0) + 1);
  const sorted = [...named].filter(([category]) => data.categories[category]).sort((a, b) => b[1] - a[1]);
  $("categories").append(...sorted.map(([category, n]) => element("option", { value: data.categories[category] }, many(n, "case", "cases"))));
  const range = (name, values) => {
    let low = Infinity, high = 0;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    form.elements[`${name}-from`].placeholder = Number.isFinite(low) ? low : 0;
    form.elements[`${name}-to`].placeholder = high;
  };
  range("popular", cases.target.map(popularity));
  range("length", cases.length);
}
