/** One HTTP request: a deadline on each, and every failure is an ApiError. */

import { failureOf, problemOf } from './problem'

export type Fetch = (url: string, init: RequestInit) => Promise<Response>

export interface Call {
  method?: 'GET' | 'POST' | 'DELETE'
  /** Sent as JSON. */
  json?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal | undefined
  /** Lets the request live on when the page is left: for those that change a cookie. */
  keepalive?: boolean
  /** Milliseconds until the answer has to begin and to end. */
  deadline?: number
}

const DEADLINE = 20_000

/**
 * The successful answer, its body unread.
 *
 * Throws ApiError for every other one and when there is none; what an abort by `signal` throws passes through.
 */
export async function send(fetch: Fetch, path: string, call: Call = {}): Promise<Response> {
  const deadline = AbortSignal.timeout(call.deadline ?? DEADLINE)
  const headers = new Headers(call.headers)
  headers.set('Accept', 'application/json')
  const init: RequestInit = {
    method: call.method ?? 'GET',
    headers,
    credentials: 'same-origin',
    redirect: 'error',
    signal: call.signal ? AbortSignal.any([call.signal, deadline]) : deadline,
    keepalive: call.keepalive ?? false,
  }
  if (call.json !== undefined) {
    headers.set('Content-Type', 'application/json')
    init.body = JSON.stringify(call.json)
  }
  try {
    const answer = await fetch(path, init)
    if (answer.ok) return answer
    throw problemOf(answer.status, (name) => answer.headers.get(name), await answer.text())
  } catch (error) {
    throw failureOf(error)
  }
}

/** The body as `read` gives it; a connection that breaks in the middle of it is an ApiError too. */
export async function body<T>(read: () => Promise<unknown>): Promise<T> {
  try {
    return (await read()) as T
  } catch (error) {
    throw failureOf(error)
  }
}

/** A promise that waits; rejects with the signal's reason when that is aborted first. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer)
      reject(signal?.reason as Error)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, milliseconds)
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
  })
}
