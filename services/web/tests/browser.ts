/** A small world around the API client: a server to answer, one lock and one store that all tabs share. */

import type { Fetch } from '../src/api/send'
import { Session, type Surroundings } from '../src/session/session'

export interface Seen {
  path: string
  method: string
  headers: Headers
  json: unknown
}

export type Handler = (request: Seen) => Response | Promise<Response>

export function json(status: number, document: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(document), { status, headers: { 'Content-Type': 'application/json', ...headers } })
}

export function problem(status: number, code: string, headers: Record<string, string> = {}): Response {
  return json(status, { type: `urn:slipway:problem:${code}`, status }, { 'Content-Type': 'application/problem+json', ...headers })
}

/** Not signed: the client reads tokens, it does not check them. */
export function accessToken(number: number, user = 'ada'): string {
  const payload = btoa(JSON.stringify({ sub: `id-${user}`, preferred_username: user, number }))
  return `header.${payload.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}.signature`
}

export class Browser {
  readonly requests: Seen[] = []
  readonly stored = new Map<string, string>()
  now = 1_000_000
  #queue: Promise<unknown> = Promise.resolve()
  readonly #tabs: { onmessage: ((event: MessageEvent) => unknown) | null }[] = []
  handle: Handler

  constructor(handle: Handler) {
    this.handle = handle
  }

  readonly fetch: Fetch = async (path, init) => {
    const body = typeof init.body === 'string' ? (JSON.parse(init.body) as unknown) : undefined
    const seen = { path, method: init.method ?? 'GET', headers: new Headers(init.headers), json: body }
    this.requests.push(seen)
    // As on a network, the answer is never there at once.
    await Promise.resolve()
    init.signal?.throwIfAborted()
    return await this.handle(seen)
  }

  paths(): string[] {
    return this.requests.map(({ path }) => path)
  }

  tab(): Session {
    const channel: Surroundings['channel'] = {
      onmessage: null,
      // As BroadcastChannel: to all tabs but this one.
      postMessage: (data) => {
        for (const tab of this.#tabs) if (tab !== channel) tab.onmessage?.({ data } as MessageEvent)
      },
    }
    this.#tabs.push(channel)
    return new Session({
      fetch: this.fetch,
      locks: {
        request: async <T>(_: string, work: () => Promise<T>): Promise<T> => {
          const turn = this.#queue.then(work)
          this.#queue = turn.catch(() => undefined)
          return await turn
        },
      },
      storage: {
        getItem: (key) => this.stored.get(key) ?? null,
        setItem: (key, value) => void this.stored.set(key, value),
        removeItem: (key) => void this.stored.delete(key),
      },
      channel,
      now: () => this.now,
    })
  }
}

/** Auth as its contract says: each refresh token works once, and using one again ends the session. */
export class AuthServer {
  issued = 0
  cookie: number | null = null
  valid: number | null = null
  down = false

  readonly handle: Handler = async ({ path, json: body }) => {
    if (this.down) return problem(503, 'upstream-unavailable', { 'Retry-After': '2' })
    const sent = this.cookie
    // Others come in between, as they can on a server.
    await new Promise((resolve) => setTimeout(resolve, 1))
    switch (path.replace('/api/v1/auth/', '')) {
      case 'login':
        return (body as { password: string }).password === 'right' ? this.#issue() : problem(401, 'invalid-credentials')
      case 'refresh':
        if (sent === null || sent !== this.valid) {
          this.valid = null
          return problem(401, 'invalid-refresh-token')
        }
        return this.#issue()
      case 'logout':
        this.valid = this.cookie = null
        return new Response(null, { status: 204 })
      default:
        return problem(404, 'not-found')
    }
  }

  #issue(): Response {
    this.issued += 1
    this.cookie = this.valid = this.issued
    return json(200, { access_token: accessToken(this.issued), token_type: 'Bearer', expires_in: 900 })
  }
}
