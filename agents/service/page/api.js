// The service's HTTP interface; what goes wrong is one line to show.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = "";

export function useKey(value) {
  key = value;
}

async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, found.error?.message ?? answer.statusText);
  return found;
}

const place = (session, what = "") => `sessions/${encodeURIComponent(session)}${what}`;

export const api = {
  policies: () => call("GET", "policies"),
  topics: () => call("GET", "topics"),
  items: (query) => call("GET", `items?limit=8&query=${encodeURIComponent(query)}`),
  replays: (policy) => call("GET", `replays/${encodeURIComponent(policy)}`),
  begin: (body) => call("POST", "sessions", body),
  recommend: (session) => call("POST", place(session, "/recommendations"), { details: true }),
  tell: (session, request, item, type) =>
    call("POST", place(session, "/events"), {
      // The same click sent twice is one click.
      events: [{ id: `${request}/${item}/${type}`, request, item, type }],
    }),
  state: (session) => call("GET", place(session)),
  forget: (session) => call("DELETE", place(session)),
};
