"use strict";
// The pages work without this. It fetches the page again every few seconds while somebody looks, and does nothing with it.

document.documentElement.classList.add("js");

const main = () => document.getElementById("main");
const quiet = () => !document.hidden && getSelection().isCollapsed && !main().contains(document.activeElement) &&
  !main().querySelector("details.ask[open], input:checked");

// what the last action has said is not said again when the page is reloaded
const address = new URL(location.href);
for (const name of ["say", "sign"]) address.searchParams.delete(name);
if (address.href !== location.href) history.replaceState(null, "", address);

// not scrollIntoView(): in Chromium 150 the first Tab would begin there
for (const each of document.querySelectorAll("[aria-current=page]")) {
  const bar = each.parentElement;
  bar.scrollLeft += each.getBoundingClientRect().x - bar.getBoundingClientRect().x - (bar.clientWidth - each.offsetWidth) / 2;
}

async function refresh() {
  const seconds = Number(main().dataset.refresh);
  if (seconds && quiet()) {
    try {
      const answer = await fetch(address, { redirect: "error" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main");
      if (answer.ok && fresh && quiet()) {
        const open = [...main().querySelectorAll("details")].map((each) => each.open);
        fresh.querySelectorAll("details").forEach((each, number) => { each.open = open[number] ?? each.open; });
        main().replaceWith(document.adoptNode(fresh));
      }
      document.body.classList.toggle("stale", !answer.ok);
    } catch {
      document.body.classList.add("stale");
    }
  }
  setTimeout(refresh, (seconds || 5) * 1000);
}
setTimeout(refresh, 5000);

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
    copy.textContent = "Copied";
  }
  if (event.target.matches("[data-all]")) {
    for (const box of event.target.form.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  }
});
