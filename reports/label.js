// Keys, and forms without a reload. Everything here works without it, only slower.
"use strict";
(() => {
  let busy = false;
  const $ = (selector) => document.querySelector(selector);
  const letters = () => localStorage.getItem("evalkit-letters") !== "off";
  const draftKey = () => "evalkit-draft:" + location.pathname;
  const note = () => $('textarea[name="comment"]');

  // --- one page after the other, without a flash

  async function go(url, options) {
    if (busy) return;
    busy = true;
    try {
      const answer = await fetch(url, { ...options, credentials: "same-origin" });
      const kind = answer.headers.get("content-type") || "";
      if (!kind.startsWith("text/html")) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (options && answer.ok) sessionStorage.removeItem(draftKey());
      document.title = page.title;
      document.body.replaceWith(document.adoptNode(page.body));
      if (answer.url !== location.href) history.pushState(null, "", answer.url);
      scrollTo(0, 0);
      arrive(true);
    } catch {
      $("#lost").hidden = false;
    } finally {
      busy = false;
    }
  }

  addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    event.preventDefault();
    go(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, event.submitter)) });
  });

  addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='/']");
    if (!link || link.target || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.href);
  });

  addEventListener("popstate", () => { if (!location.hash) go(location.href); });

  function arrive(moved) {
    if (moved) $("#main").focus({ preventScroll: true });
    $("#letters").checked = letters();
    const draft = sessionStorage.getItem(draftKey());
    if (draft && note() && !note().value) note().value = draft;
    markNext();
  }

  // --- a rubric of several questions: the first open one takes the digits

  const groups = () => [...document.querySelectorAll("fieldset:not(.one)")];
  const isOpen = (group) => !group.querySelector(":checked");
  const current = () =>
    groups().find((group) => group.contains(document.activeElement)) || groups().find(isOpen) || groups()[0];

  function markNext() {
    const next = groups().find(isOpen);
    for (const group of groups()) group.classList.toggle("is-next", group === next);
  }

  function choose(radio) {
    radio.checked = true;
    markNext();
    const next = groups().find(isOpen);
    if (next) next.querySelector("input").focus();
    else radio.form.requestSubmit();
  }

  addEventListener("change", (event) => {
    if (event.target.type === "radio") markNext();
    if (event.target.id === "letters") {
      localStorage.setItem("evalkit-letters", event.target.checked ? "on" : "off");
    }
  });

  addEventListener("input", (event) => {
    if (event.target === note()) sessionStorage.setItem(draftKey(), event.target.value);
  });

  // --- keys

  function target(key) {
    const within = groups().length && /^[1-9pf]$/.test(key) ? current() : document;
    return [...within.querySelectorAll("[data-key]")].find((one) => one.dataset.key.split(" ").includes(key));
  }

  addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.altKey || event.isComposing) return;
    if (at.matches("textarea")) {
      if (event.key === "Escape") at.blur();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        const button = at.closest("details")?.querySelector("button") ||
          at.form.querySelector('.main-button, .choice[aria-current="true"]');
        if (button) at.form.requestSubmit(button);
        else at.blur(); // nothing is chosen yet: the next key does it, and takes the note along
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.repeat || busy || !letters()) return;
    if ($("#keys").matches(":popover-open") && event.key !== "?") return;
    if (event.key === "Enter" && at.matches("button, a, summary, input")) return;
    const found = target(event.key);
    if (!found) return;
    event.preventDefault();
    if (found.matches("textarea")) found.focus();
    else if (found.matches('[type="radio"]')) choose(found);
    else found.click();
    if (found.matches("summary")) found.parentElement.querySelector("textarea")?.focus();
  });

  arrive(false);
})();
