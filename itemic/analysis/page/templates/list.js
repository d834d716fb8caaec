// The list of cases. DataTables has its head, pages and rows, and asks for one page at a time, as it would ask a server:
// so it opens at once however many cases there are, and is given numbers and elements only, never text of others.
let grid;
let order = [];  // all cases that are asked for, sorted

const collator = once(() => new Intl.Collator("en", { numeric: true, sensitivity: "base" }));

// the place of each text among all, found when it is first sorted by
function placesOf(texts) {
  const places = new Uint32Array(texts.length);
  texts.map((_, one) => one).sort((a, b) => collator().compare(texts[a], texts[b])).forEach((one, place) => { places[one] = place; });
  return places;
}
const titlePlaces = once(() => placesOf(items.title.map((_, item) => titleOf(item))));
const userPlaces = once(() => placesOf(cases.user));
const LAST = Number.MAX_SAFE_INTEGER;

// what a column sorts by, and what it shows
const COLUMNS = {
  request: [(i) => cases.request[i], (i) => element("button", { type: "button", class: "open", tabindex: -1,
    "aria-label": `Open case ${cases.request[i]}, ${cases.bad[i] ? "bad" : "good"}` }, cases.request[i].toLocaleString("en"))],
  target: [(i) => titlePlaces()[cases.target[i]], (i) => element("div", null, element("span", { class: "title" }, titleOf(cases.target[i])),
    categoryOf(cases.target[i]) ? element("span", { class: "about" }, categoryOf(cases.target[i])) : null)],
  popularity: [(i) => popularity(cases.target[i]), (i) => element("span", null, popularity(cases.target[i]).toLocaleString("en"))],
  length: [(i) => cases.length[i], (i) => element("span", null, cases.length[i].toLocaleString("en"))],
  rank: [(i) => cases.rank[i] || LAST, (i) => mark(cases.rank[i] ? cases.rank[i].toLocaleString("en") : "–", cases.bad[i] ? "bad" : "good")],
  level: [(i) => cases.level[i] || LAST, (i) => element("span", null, cases.level[i] ? String(cases.level[i]) : "–")],
  causes: [(i) => cases.causes[i].length, (i) => element("span", { class: "shows" }, ...cases.causes[i].map(([cause]) => mark(data.causes[cause].title)))],
  user: [(i) => userPlaces()[i], (i) => element("span", { class: "id" }, cases.user[i])],
};

function arrange(keys) {
  order = [];
  for (let i = 0; i < count; i++) if (kept[i]) order.push(i);
  order.sort((a, b) => {
    for (const [key, sign] of keys) {
      const by = key(a) - key(b);
      if (by) return sign * by;
    }
    return a - b;
  });
}

function makeList() {
  const columns = [...document.querySelectorAll("#list thead th")].map((head) => ({ name: head.dataset.column, className: head.className,
    orderSequence: ["asc", "desc"], data: null, render: (_, __, row) => COLUMNS[head.dataset.column][1](row.i) }));
  let sorted = "";
  grid = new DataTable("#list", {
    serverSide: true, columns, autoWidth: false, order: [[0, "asc"]], orderClasses: false, pageLength: 25, lengthMenu: [10, 25, 50, 100],
    ajax: (ask, answer) => {
      const now = JSON.stringify([filtered, ask.order]);
      if (now !== sorted) arrange(ask.order.map(({ column, dir }) => [COLUMNS[columns[column].name][0], dir === "desc" ? -1 : 1]));
      sorted = now;
      const rows = order.slice(ask.start, ask.length < 0 ? undefined : ask.start + ask.length).map((i) => ({ i }));
      answer({ draw: ask.draw, recordsTotal: count, recordsFiltered: order.length, data: rows });
    },
    createdRow: (row, { i }) => { row.dataset.i = i; },
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: ["pageLength", "paging"] },
    language: { info: "_START_ to _END_ of _TOTAL_", infoEmpty: "", infoFiltered: "", emptyTable: "There are no cases", zeroRecords: "No case is like that",
      lengthMenu: "_MENU_ a page", paginate: { first: "«", last: "»", next: "›", previous: "‹" } },
    drawCallback: () => { rove(); markOpened(); },
  });
}

let filtered = 0;  // how often the form has been asked
function refilter() {
  tell(choose());
  filtered++;
  grid.draw();
  step();
}

const rowOf = (i) => document.querySelector(`#list tr[data-i="${i}"]`);
const caseOf = (node) => Number(node.closest("tr").dataset.i);

// of a page's cases one can be reached by Tab; arrows go from there
const buttons = () => [...document.querySelectorAll("#list button.open")];
function rove(to) {
  const all = buttons();
  const here = to ?? all.find((one) => one.tabIndex === 0) ?? all[0];
  for (const one of all) one.tabIndex = one === here ? 0 : -1;
  return here;
}

function turnTo(i) {
  const place = order.indexOf(i);
  if (place < 0) return;
  const { length, page } = grid.page.info();
  if (Math.floor(place / length) !== page) grid.page(Math.floor(place / length)).draw("page");
}

function focusCase(i) {
  turnTo(i);
  const button = rowOf(i)?.querySelector("button.open");
  if (button) rove(button);
  (button ?? $("found")).focus();
}

function markOpened() {
  for (const row of document.querySelectorAll("#list tbody tr")) row.classList.toggle("opened", Number(row.dataset.i) === opened);
}

// whether there is a case before and after the open one
function step() {
  markOpened();
  if (opened < 0) return;
  const place = order.indexOf(opened);
  $("case-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  $("before").disabled = place <= 0;
  $("after").disabled = place < 0 || place === order.length - 1;
}

function go(by) {
  const place = order.indexOf(opened), next = order[place + by];
  if (place < 0 || next === undefined) return;
  turnTo(next);
  openCase(next);
}

function listKeys(event) {
  const all = buttons(), at = all.indexOf(event.target);
  if (at < 0) return;
  const { page, pages } = grid.page.info();
  const turn = (to, last) => { grid.page(to).draw("page"); const made = buttons(); rove(last ? made.at(-1) : made[0]).focus(); };
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (event.key === "PageDown" && page + 1 < pages) turn(page + 1);
  else if (event.key === "PageUp" && page > 0) turn(page - 1, true);
  else if (to !== undefined && all[to]) rove(all[to]).focus();
  else if (event.key === "ArrowDown" && page + 1 < pages) turn(page + 1);
  else if (event.key === "ArrowUp" && page > 0) turn(page - 1, true);
  else if (to === undefined) return;
  event.preventDefault();
}
