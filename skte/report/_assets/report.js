"use strict";
// Tables stay readable without this script.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        const [m, n] = [Number(x), Number(y)];
        const order = Number.isNaN(m) || Number.isNaN(n)
          ? x.localeCompare(y, undefined, { numeric: true })
          : m === n ? 0 : m < n ? -1 : 1;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
  const label = document.createElement("label");
  label.className = "find";
  label.textContent = "Find in this table";
  const input = document.createElement("input");
  input.type = "search";
  label.append(input);
  const told = document.createElement("span");
  told.className = "soft";
  told.setAttribute("role", "status");
  table.parentElement.before(label, told);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    told.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
  });
}
// Paper shows everything.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
