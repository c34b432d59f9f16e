// The slider: what every point of the sweep holds is in the page; here it is only put in its place.
"use strict";
const data = JSON.parse(document.getElementById("contexts").textContent);
const slider = document.getElementById("context");
const mib = (nbytes) => (nbytes / 1048576).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const each = (selector, act) => document.querySelectorAll(selector).forEach(act);

function show(point) {
  data.devices.forEach((name, d) => {
    let from = 0;
    data.rows.forEach((row, r) => {
      const nbytes = point.nbytes[r][d], share = nbytes / data.scale_bytes;
      const segment = document.getElementById(`s${r}-${d}`), key = document.getElementById(`k${r}-${d}`);
      segment.setAttribute("x", `${100 * from}%`);
      segment.setAttribute("width", `${100 * share}%`);
      key.setAttribute("x", `${100 * (from + share / 2)}%`);
      key.style.display = share < data.least_share ? "none" : "";
      document.getElementById(`c${r}-${d}`).textContent = nbytes ? mib(nbytes) : "–";
      from += share;
    });
    each(`[data-total="${d}"]`, (cell) => { cell.textContent = mib(point.total_bytes[d]); });
  });
  each("[data-process]", (cell) => { cell.textContent = mib(point[cell.dataset.process]); });
  each("[data-run]", (line) => { line.textContent = point.run[line.dataset.run]; });
  each("[data-fit]", (line) => {
    const fit = point.fits[line.dataset.fit];
    line.textContent = fit.text;
    line.className = `verdict ${fit.holds ? "good" : "bad"}`;
  });
  each("tr[data-context]", (row) => row.classList.toggle("asked", Number(row.dataset.context) === point.n_ctx));
  const text = `${point.n_ctx.toLocaleString("en-US")} tokens`;
  each(".n-ctx", (place) => { place.textContent = text; });
  slider.setAttribute("aria-valuetext", text);
}

document.body.classList.remove("no-script");
slider.addEventListener("input", () => show(data.points[slider.value]));
show(data.points[slider.value]);
