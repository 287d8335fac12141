// The provider's two pages: who are you, and do you agree. Plain forms, no script.

const escape = (text) =>
  String(text).replace(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]);

const page = (title, body) =>
  `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title></head>` +
  `<body><h1>${escape(title)}</h1>${body}</body></html>`;

export const loginPage = (uid, hint) =>
  page(
    'Sign in',
    `<form method="post" action="/interaction/${escape(uid)}/login">` +
      `<label>User <input name="user" value="${escape(hint ?? '')}" required></label>` +
      '<button type="submit">Sign in</button></form>',
  );

export const consentPage = (uid, user, client, scopes) =>
  page(
    'Allow access?',
    `<p>${escape(client)} asks for access to the account of ${escape(user)}.</p>` +
      `<form method="post" action="/interaction/${escape(uid)}/consent">` +
      scopes
        .map((s) => `<label><input type="checkbox" name="scope" value="${escape(s)}" checked>${escape(s)}</label>`)
        .join('') +
      '<button type="submit" name="answer" value="allow">Allow</button>' +
      '<button type="submit" name="answer" value="deny">Deny</button></form>',
  );

export const errorPage = (error) => page('Error', `<p>${escape(error)}</p>`);
