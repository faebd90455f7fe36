/**
 * Who is signed in, and the tokens that prove it.
 *
 * The access token lives in memory only, so that nothing stays behind on disk and no other page can read it. The
 * refresh token is in a cookie that scripts do not see. Each refresh token works once, and using one twice ends the
 * session: so everything that touches the cookie is done under one lock, in one tab at a time.
 */

import { ApiError } from '../api/problem'
import { body, type Fetch, send } from '../api/send'
import type { AccessToken } from '../api/types'
import { type User, userOf } from './claims'

export type SessionState =
  | { status: 'signed-out'; expired: boolean }
  /** Not known yet; `error` when the server could not be asked. */
  | { status: 'resuming'; error?: unknown }
  | { status: 'signed-in'; user: User }

/** The parts of the browser that a session needs; tests bring their own. */
export interface Surroundings {
  fetch: Fetch
  locks: { request: <T>(name: string, work: () => Promise<T>) => Promise<T> }
  storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>
  channel: { postMessage: (message: unknown) => void; onmessage: ((event: MessageEvent) => unknown) | null }
  now: () => number
}

const LOCK = 'slipway-session'
/** Says that a refresh is worth a try: the cookie itself cannot be seen. */
const HINT = 'slipway.signed-in'
/** Milliseconds before its end from which on a token is renewed rather than used. */
const MARGIN = 30_000

interface Token {
  value: string
  expiresAt: number
}

export class Session {
  #state: SessionState
  #token: Token | null = null
  #renewing: Promise<string> | null = null
  readonly #listeners = new Set<() => void>()
  readonly #around: Surroundings

  constructor(around: Surroundings) {
    this.#around = around
    this.#state = around.storage.getItem(HINT) ? { status: 'resuming' } : { status: 'signed-out', expired: false }
    around.channel.onmessage = (event) => this.#changedElsewhere(event.data === 'signed-in')
  }

  get state(): SessionState {
    return this.#state
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** After a page load: back to where the last one was. Errors end up in the state. */
  async resume(): Promise<void> {
    if (this.#state.status !== 'resuming') return
    this.#set({ status: 'resuming' })
    await this.#renew().catch((error: unknown) => {
      if (this.#state.status === 'resuming') this.#set({ status: 'resuming', error })
    })
  }

  async signIn(username: string, password: string): Promise<void> {
    const json = { username, password, refresh_token_in: 'cookie' }
    await this.#exclusive(async () => this.#accept(await this.#post('login', json)))
    this.#around.channel.postMessage('signed-in')
  }

  /** Throws when the server could not be told: the cookie would still be good. */
  async signOut(): Promise<void> {
    await this.#exclusive(() => this.#post('logout', {}))
    this.#end(false)
    this.#around.channel.postMessage('signed-out')
  }

  /** A token that is good for another while. Throws ApiError `session-expired` when there is none to be had. */
  async token(): Promise<string> {
    if (this.#token && this.#token.expiresAt - this.#around.now() > MARGIN) return this.#token.value
    if (this.#state.status === 'signed-out') throw new ApiError(401, { code: 'session-expired' })
    return await this.#renew()
  }

  /** Another token instead of one that a service has just refused. */
  async replace(refused: string): Promise<string> {
    if (this.#token?.value === refused) this.#token = null
    return await this.token()
  }

  #renew(): Promise<string> {
    this.#renewing ??= this.#exclusive(() => this.#refresh()).finally(() => {
      this.#renewing = null
    })
    return this.#renewing
  }

  async #refresh(): Promise<string> {
    try {
      return await this.#accept(await this.#post('refresh', {}))
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error
      this.#end(true)
      throw new ApiError(401, { code: 'session-expired', requestId: error.requestId })
    }
  }

  /** `keepalive`: a cookie that was replaced on the server must be replaced here too, even when the page is left. */
  async #post(path: string, json: unknown): Promise<Response> {
    return await send(this.#around.fetch, `/api/v1/auth/${path}`, { method: 'POST', json, keepalive: true })
  }

  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    return await this.#around.locks.request(LOCK, work)
  }

  async #accept(answer: Response): Promise<string> {
    const { access_token: value, expires_in: seconds } = await body<AccessToken>(() => answer.json())
    const user = userOf(value)
    this.#token = { value, expiresAt: this.#around.now() + seconds * 1000 }
    this.#around.storage.setItem(HINT, '1')
    // The same user keeps the same object: nothing on the page begins anew because a token did.
    if (this.#state.status !== 'signed-in' || this.#state.user.id !== user.id) this.#set({ status: 'signed-in', user })
    return value
  }

  #end(expired: boolean): void {
    this.#token = null
    this.#around.storage.removeItem(HINT)
    this.#set({ status: 'signed-out', expired })
  }

  /** Another tab changed the cookie: what this one knows is no longer true. */
  #changedElsewhere(signedIn: boolean): void {
    if (!signedIn) {
      this.#end(false)
      return
    }
    this.#token = null
    if (this.#state.status === 'signed-out') this.#set({ status: 'resuming' })
    this.#renew().catch((error: unknown) => {
      if (this.#state.status === 'resuming') this.#set({ status: 'resuming', error })
    })
  }

  #set(state: SessionState): void {
    this.#state = state
    for (const listener of this.#listeners) listener()
  }
}
