// Keeps an open page live: when the server says that something happened, the page is fetched again
// and its parts marked data-live are exchanged. Without this script pages and forms work as well.
"use strict";
(() => {
  const parts = document.querySelectorAll("[data-live]");
  const sign = document.getElementById("live-state");
  if (!parts.length || !window.EventSource || document.querySelector("input[name=token]")) return;

  // a part that somebody reads by keyboard, types in or has opened something in is left alone
  const inUse = (part) => (part.contains(document.activeElement) && document.activeElement.matches(":focus-visible"))
    || part.querySelector("details[open]") !== null
    || [...part.querySelectorAll("input[name=reason]")].some((field) => field.value !== field.defaultValue);

  let fetching = false;
  let missed = false;
  async function refresh() {
    if (fetching || document.hidden) {
      missed = fetching;
      return;
    }
    fetching = true;
    missed = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.redirected) {
        location.reload();
      } else if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const next = fresh.getElementById(part.id);
          if (next && !inUse(part) && next.innerHTML !== part.innerHTML) {
            part.replaceChildren(...next.childNodes);
          }
        }
      }
    } catch {
      // the stream says when the server is back
    } finally {
      fetching = false;
      if (missed) refresh();
    }
  }

  // a browser opens few connections to one server: pages that nobody looks at give theirs back
  let stream = null;
  function listen() {
    if (document.hidden) {
      stream?.close();
      stream = null;
    } else if (!stream) {
      stream = new EventSource("/console/live");
      stream.addEventListener("open", () => { sign.textContent = "· live"; });
      stream.addEventListener("error", () => { sign.textContent = "· not live"; });
      stream.addEventListener("changed", refresh);
    }
  }
  document.addEventListener("visibilitychange", () => {
    listen();
    refresh();
  });
  window.addEventListener("pagehide", () => stream?.close());
  listen();
})();
