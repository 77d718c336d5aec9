'use strict';
(() => {
  const root = document.documentElement, told = document.getElementById('told');
  const box = document.getElementById('ask'), form = document.getElementById('ask-form');
  root.classList.add('js');
  const KEY = 'rillway-token', EVERY = 1000, LATE = 5000;
  const token = () => sessionStorage.getItem(KEY);
  const headers = () => token() ? { Authorization: 'Bearer ' + token() } : {};
  const tell = text => { told.textContent = text; };
  let lastSeen = Date.now(), shown = '', lost = false, declined = false;

  // Open consumers stay open, and what has the focus keeps it.
  const take = fresh => {
    const old = document.getElementById('status');
    const open = new Set([...old.querySelectorAll('details[open]')].map(d => d.dataset.key));
    const focus = document.activeElement && document.activeElement.dataset.focus;
    fresh.querySelectorAll('details').forEach(d => { d.open = open.has(d.dataset.key); });
    old.replaceWith(fresh);
    if (focus) {
      const again = [...fresh.querySelectorAll('[data-focus]')].find(e => e.dataset.focus === focus);
      if (again) again.focus({ preventScroll: true });
    }
  };
  const refresh = async () => {
    const answer = await fetch('/', { headers: headers(), cache: 'no-store', signal: AbortSignal.timeout(LATE) });
    if (answer.status === 401) {
      const wrong = token();
      sessionStorage.removeItem(KEY);
      if (await ask(wrong ? 'That is not the token any more.' : 'This server shows its state only with the token.')) return;
      declined = true;
      return tell('Reload the page to enter the token.');
    }
    const text = await answer.text();
    lastSeen = Date.now();
    if (lost) { lost = false; tell(''); }
    document.title = (/<title>(.*?)<\/title>/.exec(text) || [])[1] || document.title;
    // Only that part: the style and the script of the answer have another nonce.
    const part = text.slice(text.indexOf('<main'), text.indexOf('</main>') + 7);
    const status = new DOMParser().parseFromString(part, 'text/html').getElementById('status');
    if (!status || status.outerHTML === shown) return;
    // Text that somebody is selecting stays.
    const selection = getSelection();
    if (selection && !selection.isCollapsed) return;
    shown = status.outerHTML;
    take(document.adoptNode(status));
  };
  const turn = async () => {
    if (!document.hidden && !box.open && !declined) {
      try { await refresh(); } catch (error) {
        const seconds = Math.round((Date.now() - lastSeen) / 1000);
        if (seconds >= 3) { lost = true; tell('No answer for ' + seconds + ' s: what is shown is as old as that.'); }
      }
    }
    setTimeout(turn, EVERY);
  };

  let resolveToken = null;
  const ask = why => new Promise(resolve => {
    document.getElementById('ask-why').textContent = why;
    resolveToken = resolve;
    if (!box.open) box.showModal();
  });
  form.addEventListener('submit', () => {
    const value = document.getElementById('ask-token').value.trim();
    document.getElementById('ask-token').value = '';
    if (value) sessionStorage.setItem(KEY, value);
    if (resolveToken) { resolveToken(Boolean(value)); resolveToken = null; }
  });
  box.addEventListener('cancel', () => { if (resolveToken) { resolveToken(false); resolveToken = null; } });
  document.getElementById('ask-no').addEventListener('click', () => {
    box.close();
    if (resolveToken) { resolveToken(false); resolveToken = null; }
  });

  const act = async (verb, name) => {
    const path = '/api/v1/consumers/' + encodeURIComponent(name) + '/' + verb;
    tell(name + ': ' + verb + ' …');
    for (;;) {
      const answer = await fetch(path, { method: 'POST', headers: headers() });
      const body = await answer.json().catch(() => ({}));
      if (answer.status === 401) {
        const wrong = token();
        sessionStorage.removeItem(KEY);
        if (await ask(wrong ? 'That was not the token.' : 'Commands need the token of this server.')) continue;
        return tell(name + ': ' + verb + ' was not sent, because it needs the token.');
      }
      if (answer.ok) {
        const done = answer.status === 202 ? 'accepted, and not finished yet' : 'done';
        return tell(name + ': ' + verb + ' ' + done + '.');
      }
      return tell(name + ': ' + verb + ' failed: ' + (body.error || answer.status));
    }
  };
  document.addEventListener('click', event => {
    const button = event.target.closest('button[data-verb]');
    if (!button) return;
    const { verb, name } = button.dataset;
    act(verb, name).catch(error => tell(name + ': ' + verb + ' failed: ' + error.message));
  });
  turn();
})();
