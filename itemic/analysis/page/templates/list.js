// The list of cases: DataTables sorts and pages it, and is given numbers and elements only, never text of others.
let grid;

const short = (found) => found.map(([cause]) => data.causes[cause].title);
const titleOrder = (() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  let places;
  return (item) => {
    if (!places) {  // asked for by the first sorting alone
      places = new Uint32Array(items.title.length);
      items.title.map((_, one) => one).sort((a, b) => collator.compare(titleOf(a), titleOf(b))).forEach((one, place) => { places[one] = place; });
    }
    return places[item];
  };
})();
const userOrder = (() => {
  let places;
  return (i) => {
    if (!places) {
      const collator = new Intl.Collator("en", { numeric: true });
      places = new Uint32Array(count);
      cases.user.map((_, one) => one).sort((a, b) => collator.compare(cases.user[a], cases.user[b])).forEach((one, place) => { places[one] = place; });
    }
    return places[i];
  };
})();

// what a column sorts by, and what it shows
const COLUMNS = {
  request: [(i) => cases.request[i], (i) => element("button", { type: "button", class: "open", tabindex: -1,
    "aria-label": `Open case ${cases.request[i]}, ${cases.bad[i] ? "bad" : "good"}` }, cases.request[i].toLocaleString("en"))],
  target: [(i) => titleOrder(cases.target[i]), (i) => element("div", null, element("span", { class: "title" }, titleOf(cases.target[i])),
    categoryOf(cases.target[i]) ? element("span", { class: "about" }, categoryOf(cases.target[i])) : null)],
  popularity: [(i) => popularity(cases.target[i]), (i) => element("span", null, popularity(cases.target[i]).toLocaleString("en"))],
  length: [(i) => cases.length[i], (i) => element("span", null, cases.length[i].toLocaleString("en"))],
  rank: [(i) => cases.rank[i] || 1e9, (i) => mark(cases.rank[i] ? cases.rank[i].toLocaleString("en") : "–", cases.bad[i] ? "bad" : "good")],
  level: [(i) => cases.level[i] || 1e9, (i) => element("span", null, cases.level[i] ? String(cases.level[i]) : "–")],
  causes: [(i) => cases.causes[i].length, (i) => element("span", { class: "shows" }, ...short(cases.causes[i]).map((title) => mark(title)))],
  user: [userOrder, (i) => element("span", { class: "id" }, cases.user[i])],
};

function makeList() {
  const heads = [...document.querySelectorAll("#list thead th")];
  const columns = heads.map((head) => {
    const [value, shows] = COLUMNS[head.dataset.column];
    return { data: null, type: "num", searchable: false, className: head.className, createdCell: (cell) => { cell.dataset.label = head.textContent.trim(); },
      render: (_, type, row) => (type === "display" ? shows(row.i) : value(row.i)) };
  });
  grid = new DataTable("#list", {
    data: Array.from({ length: count }, (_, i) => ({ i })),
    columns, autoWidth: false, deferRender: true, order: [[0, "asc"]], orderClasses: false, pageLength: 25,
    lengthMenu: [10, 25, 50, 100],
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: ["pageLength", "paging"] },
    language: { info: "_START_ to _END_ of _TOTAL_", infoEmpty: "", infoFiltered: "", emptyTable: "There are no cases", zeroRecords: "No case is like that",
      lengthMenu: "_MENU_ a page", paginate: { first: "«", last: "»", next: "›", previous: "‹" } },
    drawCallback: () => rove(),
  });
  grid.search.fixed("asked", (_, row) => kept[row.i] === 1);
}

function refilter() {
  tell(choose());
  grid.draw();
  step();
}

// of a page's cases one can be reached by Tab; arrows go from there
const buttons = () => [...document.querySelectorAll("#list button.open")];
function rove(to) {
  const all = buttons();
  const here = to ?? all.find((one) => one.tabIndex === 0) ?? all[0];
  for (const one of all) one.tabIndex = one === here ? 0 : -1;
  return here;
}
const caseOf = (node) => grid.row(node.closest("tr")).data().i;

// cases in the order that the list shows, over all its pages
const inOrder = () => grid.rows({ search: "applied", order: "applied" }).indexes().toArray();

function turnTo(i) {
  const place = inOrder().indexOf(i);
  if (place < 0) return null;
  const { length, page } = grid.page.info();
  if (Math.floor(place / length) !== page) grid.page(Math.floor(place / length)).draw("page");
  return grid.row(i).node();
}

function focusCase(i) {
  const row = i < 0 ? null : turnTo(i);
  const button = row?.querySelector("button.open") ?? $("found");
  if (row) rove(button);
  button.focus();
}

// whether there is a case before and after the open one
function step() {
  for (const row of document.querySelectorAll("#list tr.opened")) row.classList.remove("opened");
  if (opened < 0) return;
  grid.row(opened).node()?.classList.add("opened");
  const order = inOrder(), place = order.indexOf(opened);
  $("case-place").textContent = place < 0 ? "" : `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  $("before").disabled = place <= 0;
  $("after").disabled = place < 0 || place === order.length - 1;
}

function go(by) {
  const order = inOrder(), next = order[order.indexOf(opened) + by];
  if (next === undefined || order.indexOf(opened) < 0) return;
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
