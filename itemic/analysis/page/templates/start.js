// Everything is put together: the form, the list, the case, and the charts once there is time.
const slower = (run, wait) => { let timer; return () => { clearTimeout(timer); timer = setTimeout(run, wait); }; };

furnish();
makeList();
tell(choose());

const soon = slower(refilter, 150);
form.addEventListener("input", (event) => (["radio", "checkbox"].includes(event.target.type) ? refilter() : soon()));
form.addEventListener("submit", (event) => { event.preventDefault(); refilter(); });
form.addEventListener("reset", () => setTimeout(refilter));
form.elements.order.addEventListener("change", (event) => {
  const [column, direction] = event.target.value.split(" ");
  grid.order([[Number(column), direction]]).draw();
});

$("list").addEventListener("click", (event) => {
  const row = event.target.closest("tbody tr");
  if (row?.querySelector("button.open")) openCase(caseOf(row));
});
$("list").addEventListener("keydown", listKeys);
$("close").addEventListener("click", closeCase);
$("before").addEventListener("click", () => go(-1));
$("after").addEventListener("click", () => go(1));
document.addEventListener("keydown", (event) => {
  if (!panel.open || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") closeCase();
  else if (panel.contains(event.target) && event.key === "ArrowLeft") go(-1);
  else if (panel.contains(event.target) && event.key === "ArrowRight") go(1);
});

// from a cause to the bad cases that show it
for (const link of document.querySelectorAll("button[data-cause]")) {
  const cause = data.causes.findIndex((one) => one.name === link.dataset.cause);
  const box = form.querySelector(`input[name=cause][value="${cause}"]`);
  link.hidden = !box;
  link.addEventListener("click", () => {
    form.reset();
    form.elements.status.value = "bad";
    box.checked = true;
    setTimeout(() => { refilter(); $("cases").scrollIntoView(); $("found").focus({ preventScroll: true }); });
  });
}

// one slicing at a time
function showSlice() {
  const chosen = document.querySelector("input[name=slice]:checked")?.value ?? "0";
  for (const table of document.querySelectorAll("[data-slice]")) table.hidden = table.dataset.slice !== chosen;
}
for (const choice of document.querySelectorAll("input[name=slice]")) choice.addEventListener("change", showSlice);
showSlice();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("beforeprint", () => { clearPaper(); copyForPaper(); });
addEventListener("afterprint", clearPaper);

function follow() {
  const named = /^#case-(\d+)$/.exec(location.hash);
  const i = named ? cases.request.indexOf(Number(named[1])) : -1;
  if (i >= 0) { turnTo(i); openCase(i); }
}
addEventListener("hashchange", follow);
document.documentElement.dataset.ready = String(Math.round(performance.now()));
follow();
startCharts();
