/** What the gateway takes and gives, as its OpenAPI document says. Times are ISO 8601 in UTC, sizes are bytes. */

export interface AccessToken {
  access_token: string
  token_type: 'Bearer'
  /** Seconds. */
  expires_in: number
}

export interface Page<T> {
  items: T[]
  /** Passed as `cursor` it gives the following page; null on the last one. */
  next_cursor: string | null
}

export interface Post {
  id: string
  title: string
  content: string
  author: { id: string; username: string }
  created_at: string
}

export interface NewPost {
  title: string
  content: string
}

/** Longer side of a thumbnail in pixels. */
export type ThumbnailSize = '160' | '480' | '1200'

export interface Image {
  filename: string
  url: string
  sha256: string
  size: number
  width: number
  height: number
  content_type: string
  created_at: string
  /** Path of each thumbnail. */
  thumbnails: Record<ThumbnailSize, string>
}

export interface Amount {
  images: number
  bytes: number
}

export interface ImageStats extends Amount {
  /** Most that one account may keep. */
  quota: Amount
}
