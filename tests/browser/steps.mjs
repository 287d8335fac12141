// People with a browser each, in headless Chromium: takes a step for each line of JSON on standard input, and tells on standard
// output, as a line of JSON, what the person sees then. Its end ends the browser.
//
//   node steps.mjs /usr/bin/chromium
//   {"person": "alice", "open": "http://127.0.0.1:8080/connect/…"}
//   {"person": "alice", "click": "button"}

import { createInterface } from 'node:readline';

import puppeteer from 'puppeteer-core';

const browser = await puppeteer.launch({
  executablePath: process.argv[2],
  // Chromium's own sandbox needs rights that a container may lack; the pages are the tests' own.
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
});
const people = new Map();

/** A person's one tab, in a context without anybody else's cookies. */
async function meet(name) {
  if (!people.has(name)) {
    const context = await browser.createBrowserContext();
    const tab = await context.newPage();
    const person = { tab, complaints: [], visited: [] };
    tab.on('console', (message) => {
      // A page that says 4xx is no fault of the page; nobody asks for an icon.
      const expected = /status of [45]\d\d|favicon/.test(message.text());
      if (message.type() === 'error' && !expected) person.complaints.push(message.text());
    });
    tab.on('request', (request) => {
      if (request.isNavigationRequest()) person.visited.push(request.url());
    });
    people.set(name, person);
  }
  return people.get(name);
}

const steps = {
  open: ({ tab }, url) => tab.goto(url),
  click: ({ tab }, selector) => Promise.all([tab.waitForNavigation(), tab.click(selector)]),
  fill: async ({ tab }, [selector, text]) => {
    await tab.$eval(selector, (field) => (field.value = ''));
    await tab.type(selector, text);
  },
  forget_cookies: async ({ tab }) => {
    const client = await tab.createCDPSession();
    await client.send('Network.clearBrowserCookies');
  },
  look: () => {},
};

for await (const line of createInterface({ input: process.stdin })) {
  const { person: name, ...step } = JSON.parse(line);
  let seen;
  try {
    const person = await meet(name);
    const [[what, how]] = Object.entries(step);
    await steps[what](person, how);
    const { tab, complaints, visited } = person;
    seen = {
      url: tab.url(),
      title: await tab.title(),
      ...(await tab.evaluate(() => ({
        page: document.documentElement.dataset.page ?? '',
        text: document.body?.innerText ?? '',
      }))),
      complaints,
      visited,
    };
  } catch (error) {
    seen = { error: String(error) };
  }
  console.log(JSON.stringify(seen));
}
await browser.close();
