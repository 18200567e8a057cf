"use strict";
// Comfort only: the page says everything without it. Reads the page's own text, sends nothing.
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  const cases = [...document.querySelectorAll("details.case")];
  const words = cases.map((one) => one.textContent.toLowerCase());
  const query = document.getElementById("find");
  const set = document.getElementById("set");
  const told = document.getElementById("told");
  const narrow = () => {
    const wanted = query.value.trim().toLowerCase();
    let shown = 0;
    cases.forEach((one, n) => {
      const fits = (!set.value || one.dataset.set === set.value) && words[n].includes(wanted);
      one.hidden = !fits;
      shown += fits;
    });
    told.textContent = `${shown} of ${cases.length} shown`;
  };
  query.addEventListener("input", narrow);
  set.addEventListener("change", narrow);
  document.getElementById("open").addEventListener("click", () => {
    const open = cases.some((one) => !one.hidden && !one.open);
    cases.forEach((one) => { if (!one.hidden) one.open = open; });
  });
  tools.hidden = false;
  narrow();
})();
