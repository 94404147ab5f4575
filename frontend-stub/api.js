// Answers in one piece.

/// What the server, or the way to it, says is wrong.
export class Problem extends Error {
  constructor(status, title, detail, body = {}) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.body = body;
  }
}

const LIMIT = 20_000;

async function ask(path, accept, signal) {
  const limit = AbortSignal.timeout(LIMIT);
  let response;
  try {
    response = await fetch(path, {
      headers: { accept },
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "podherald does not answer");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(response.status, problem.title ?? `Status ${response.status}`, problem.detail, problem);
}

/// The whole answer: it may break off after its beginning.
async function whole(response, read, signal) {
  try {
    return await read(await response);
  } catch (error) {
    if (signal?.aborted || error instanceof Problem) throw error;
    throw new Problem(0, "podherald's answer broke off");
  }
}

export const json = (path, signal) => whole(ask(path, "application/json", signal), response => response.json(), signal);
export const text = (path, signal) => whole(ask(path, "*/*", signal), response => response.text(), signal);

/// A path with its parameters; a value may be a list, and one that is empty is left out.
export function path(base, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return text ? `${base}?${text}` : base;
}

export const executionPath = id => `/executions/${encodeURIComponent(id)}`;
