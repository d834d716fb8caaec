// The page's scripts share one module; they stand in the order of page.py. Text of others is set as text, never as HTML.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const $ = (id) => document.getElementById(id);
const many = (count, one, more) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

const once = (make) => { let made; return () => (made ??= make()); };

// element("p", {class: "note", onclick: f}, "text", otherElement, null)
function element(tag, about, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about ?? {})) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
  return made;
}

const data = read("data");
const { items, cases } = data;
const count = cases.request.length;
const titleOf = (item) => items.title[item] || items.id[item];
const categoryOf = (item) => data.categories[items.category[item]];
const popularity = (item) => items.count[item];

// the semantic ID level by level: as tokens, where its text falls into as many of them as it has codes
function levelsOf(item) {
  const codes = items.codes[item];
  const tokens = (items.sid[item].match(/<[^<>]+>/g) ?? []).filter((token) => !/_(begin|end)\|>$/.test(token));
  return tokens.length === codes.length ? tokens : codes.map(String);
}

// how many levels two items have in common, from the first one on
function shared(one, other) {
  let level = 0;
  while (level < one.length && one[level] === other[level]) level++;
  return level;
}
