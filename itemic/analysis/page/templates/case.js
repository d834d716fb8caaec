// One case, read from top to bottom: what came, why it was missed, what was recommended, the history, level by level.
const panel = $("case");
const narrow = matchMedia("(max-width: 64rem)");
let opened = -1;

const sentence = (pieces, values) => pieces.map((piece, i) => piece + (i < values.length ? data.words[values[i]] : "")).join("");

function itemLine(item, ...marks) {
  const sid = items.sid[item];
  return element("div", { class: "item" },
    element("span", { class: "title" }, titleOf(item), ...marks),
    element("span", { class: "about" }, categoryOf(item), categoryOf(item) ? " · " : "", `seen ${many(popularity(item), "time", "times")}`,
      " · ", element("span", { class: "id" }, items.id[item]), sid ? " · " : "", sid ? element("code", null, sid) : null));
}

const mark = (text, kind) => element("span", { class: `mark ${kind ?? ""}` }, text);

function whyPart(i) {
  if (!cases.causes[i].length) return element("p", { class: "note" }, "It shows none of the patterns.");
  return element("ul", { class: "why" }, ...cases.causes[i].map(([cause, ...values]) => element("li", null,
    element("b", null, data.causes[cause].title), " ", sentence(data.causes[cause].says, values))));
}

function listedPart(i) {
  const had = new Set(cases.history[i]);
  const wanted = levelsOf(cases.target[i]);
  return element("ol", { class: "listed" }, ...cases.listed[i].map((item, place) => {
    const same = shared(wanted, levelsOf(item));
    const score = cases.scores[i][place];
    return element("li", { class: item === cases.target[i] ? "target" : null }, itemLine(item,
      item === cases.target[i] ? mark("what came", "good") : null,
      had.has(item) ? mark("in the history") : null,
      wanted.length && item !== cases.target[i] ? mark(same ? `${many(same, "level", "levels")} right` : "no level right", same ? "some" : "") : null),
      score === null || score === undefined ? null : element("span", { class: "score", title: "score" }, String(score)));
  }));
}

function historyPart(i) {
  const history = cases.history[i];
  const left = cases.length[i] - history.length;
  return [
    left > 0 ? element("p", { class: "note" }, `${many(left, "earlier item is", "earlier items are")} not shown.`) : null,
    history.length ? element("ol", { class: "history", start: left + 1 }, ...history.map((item) => element("li", null,
      itemLine(item, item === cases.target[i] ? mark("what came", "good") : null))))
      : element("p", { class: "note" }, "There is none."),
  ];
}

function levelsPart(i) {
  const wanted = levelsOf(cases.target[i]);
  if (!wanted.length) return [];
  const lists = cases.listed[i].map(levelsOf);
  const head = ["Level", "What came", "First place", "Right so far", ""].map((text) => element("th", { scope: "col" }, text));
  const rows = wanted.map((token, level) => {
    const right = lists.filter((one) => shared(wanted, one) > level).length;
    const wrong = cases.level[i] === level + 1;
    return element("tr", { class: wrong ? "wrong" : right ? "right" : null },
      element("th", { scope: "row" }, String(level + 1)), element("td", null, element("code", null, token)),
      element("td", null, element("code", null, lists[0]?.[level] ?? "–")),
      element("td", null, `${right} of ${lists.length}`),
      element("td", null, wrong ? "first wrong here" : right ? "✓" : ""));
  });
  return [element("h3", null, "Level by level"), element("div", { class: "wide" }, element("table", null,
    element("caption", null, "How many of the recommended items have the right code so far"),
    element("thead", null, element("tr", null, ...head)), element("tbody", null, ...rows)))];
}

function verdict(i) {
  if (!cases.bad[i]) return mark(`good: at place ${cases.rank[i]}`, "good");
  const place = cases.rank[i] ? `at place ${cases.rank[i]}` : "not in the list";
  return mark(`bad: ${place}`, "bad");
}

function fill(i) {
  const target = cases.target[i];
  $("case-title").textContent = `Case ${cases.request[i].toLocaleString("en")}`;
  $("case-body").replaceChildren(
    element("p", { class: "who" }, verdict(i), " user ", element("span", { class: "id" }, cases.user[i])),
    element("h3", null, "What came next"), itemLine(target),
    element("h3", null, "Why"), whyPart(i),
    element("h3", null, "What was recommended"),
    cases.listed[i].length ? listedPart(i) : element("p", { class: "note" }, "Nothing."),
    ...levelsPart(i),
    element("h3", null, `History of ${many(cases.length[i], "item", "items")}, oldest first`), ...historyPart(i).filter(Boolean));
  panel.scrollTop = 0;
}

// what is looked at stays where it is on the screen while the page around it gets another width
function inPlace(node, change) {
  const before = node?.getBoundingClientRect().top;
  change();
  const seen = before !== undefined && before > -innerHeight && before < 2 * innerHeight;
  if (seen) scrollBy({ top: node.getBoundingClientRect().top - before, behavior: "instant" });
}

// beside the list where there is room, over it where there is none
function openCase(i) {
  opened = i;
  fill(i);
  inPlace(rowOf(i), () => {
    if (!panel.open) panel.show();
    document.body.classList.add("reading");
  });
  $("main").inert = narrow.matches;
  $("case-title").focus({ preventScroll: true });
  address(`#case-${cases.request[i]}`);
  step();
}

function closeCase() {
  if (!panel.open) return;
  const was = opened;
  opened = -1;
  inPlace(rowOf(was), () => {
    panel.close();
    document.body.classList.remove("reading");
  });
  $("main").inert = false;
  address("#cases");
  focusCase(was);
}

// a case has an address of its own, which isn't a step back in the browser's history
function address(hash) {
  try { history.replaceState(null, "", hash); } catch { /* some browsers let no file do that */ }
}

narrow.addEventListener("change", () => { $("main").inert = panel.open && narrow.matches; });
