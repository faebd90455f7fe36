/** The gateway's API, as the views use it: typed calls, with the caller's token where one is needed. */

import type { Session } from '../session/session'
import { ApiError } from './problem'
import { body, type Call, type Fetch, pause, send } from './send'
import type { Image, ImageStats, NewPost, Page, Post } from './types'
import { type Progress, uploadWith } from './upload'

const ROOT = '/api/v1'
/** Attempts at reading something while the server says that it is busy. */
const ATTEMPTS = 3
/** Longest wait between them, in seconds; who is told to wait longer should know. */
const PATIENCE = 5
const POSTS_PER_PAGE = 10
const IMAGES_PER_PAGE = 24

export class Api {
  readonly #session: Session
  readonly #fetch: Fetch

  constructor(session: Session, fetch: Fetch) {
    this.#session = session
    this.#fetch = fetch
  }

  async register(username: string, password: string): Promise<void> {
    await send(this.#fetch, `${ROOT}/auth/register`, { method: 'POST', json: { username, password } })
  }

  async changePassword(current: string, next: string): Promise<void> {
    await this.#authorized('/auth/password', {
      method: 'POST',
      json: { current_password: current, new_password: next },
    })
  }

  /** Of everybody, or of the caller; newest first. */
  async posts(whose: 'all' | 'mine', cursor: string | null, signal: AbortSignal): Promise<Page<Post>> {
    const path = `/posts${whose === 'mine' ? '/my' : ''}?${page(POSTS_PER_PAGE, cursor)}`
    const read = () => (whose === 'mine' ? this.#authorized(path, { signal }) : send(this.#fetch, ROOT + path, { signal }))
    return await patiently(async () => body<Page<Post>>(await json(read())), signal)
  }

  async post(id: string, signal: AbortSignal): Promise<Post> {
    const path = `${ROOT}/posts/${encodeURIComponent(id)}`
    return await patiently(async () => body<Post>(await json(send(this.#fetch, path, { signal }))), signal)
  }

  /** With the same `key` the same post is created once, however often this is called (for a day). */
  async createPost(post: NewPost, key: string): Promise<Post> {
    const call: Call = { method: 'POST', json: post, headers: { 'Idempotency-Key': key } }
    return await body<Post>(await json(this.#authorized('/posts', call)))
  }

  async deletePost(id: string): Promise<void> {
    await this.#authorized(`/posts/${encodeURIComponent(id)}`, { method: 'DELETE' })
  }

  async images(cursor: string | null, signal: AbortSignal): Promise<Page<Image>> {
    const path = `/images?${page(IMAGES_PER_PAGE, cursor)}`
    return await patiently(async () => body<Page<Image>>(await json(this.#authorized(path, { signal }))), signal)
  }

  async imageStats(signal: AbortSignal): Promise<ImageStats> {
    return await patiently(async () => body<ImageStats>(await json(this.#authorized('/images/stats', { signal }))), signal)
  }

  /** The bytes behind `url`, a path of this API. An <img> cannot send a token, so they are fetched. */
  async picture(url: string, signal: AbortSignal): Promise<Blob> {
    const path = pathOf(url)
    return await patiently(async () => {
      const answer = await this.#authorized(path, { signal, deadline: 60_000, headers: { Accept: 'image/*' } })
      return await body<Blob>(() => answer.blob())
    }, signal)
  }

  async deleteImage(filename: string): Promise<void> {
    await this.#authorized(`/images/${encodeURIComponent(filename)}`, { method: 'DELETE' })
  }

  async upload(file: File, progress: Progress, signal: AbortSignal): Promise<Image> {
    const image = await this.#withToken((token) => uploadWith(`${ROOT}/images`, file, token, progress, signal))
    return image
  }

  async #authorized(path: string, call: Call): Promise<Response> {
    return await this.#withToken((token) =>
      send(this.#fetch, ROOT + path, { ...call, headers: { ...call.headers, Authorization: `Bearer ${token}` } }),
    )
  }

  /** Once more with a new token when the services refuse the one at hand, as they do when a session was ended. */
  async #withToken<T>(work: (token: string) => Promise<T>): Promise<T> {
    const token = await this.#session.token()
    try {
      return await work(token)
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'invalid-token') throw error
      return await work(await this.#session.replace(token))
    }
  }
}

/** Only for reading: again when the server is busy and says that it will not be for long. */
async function patiently<T>(read: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await read()
    } catch (error) {
      const wait = error instanceof ApiError && error.status === 503 ? error.retryAfter : undefined
      if (wait === undefined || wait > PATIENCE || attempt === ATTEMPTS) throw error
      // Not all at the same moment: they were refused together, too.
      await pause((wait + Math.random() * attempt) * 1000, signal)
    }
  }
}

async function json(answer: Promise<Response>): Promise<() => Promise<unknown>> {
  const arrived = await answer
  return () => arrived.json()
}

function page(limit: number, cursor: string | null): string {
  return new URLSearchParams({ limit: String(limit), ...(cursor === null ? {} : { cursor }) }).toString()
}

/**
 * The part of an image's address below /api/v1. The host is left out: services name the public one, which need not be
 * the one that this page was opened by, and the token goes to this page's own origin and nowhere else.
 */
export function pathOf(url: string): string {
  const { pathname } = new URL(url, 'https://any.invalid')
  if (!pathname.startsWith(`${ROOT}/images/`)) {
    throw new Error(`address of an image: found ${url}, wanted one below ${ROOT}/images/`)
  }
  return pathname.slice(ROOT.length)
}
