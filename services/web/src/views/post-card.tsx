import { useState } from 'react'
import type { Post } from '../api/types'
import { Confirm } from '../components/confirm'
import { Time } from '../components/time'
import { useServices } from '../hooks/services'
import { Link } from '../router'

/** One post. `deleted` only where the user may delete it: called when that is done. */
export function PostCard({ post, level, deleted }: { post: Post; level: 1 | 2; deleted?: () => void }) {
  const { api } = useServices()
  const [asking, setAsking] = useState(false)
  return (
    <article className="card post">
      {level === 2 && (
        <h2>
          <Link href={`/posts/${post.id}`}>{post.title}</Link>
        </h2>
      )}
      <p className="byline">
        <span className="author">{post.author.username}</span> <Time at={post.created_at} />
      </p>
      <p className="text">{post.content}</p>
      {deleted && (
        <button type="button" className="quiet danger" onClick={() => setAsking(true)}>
          Delete<span className="visually-hidden"> {post.title}</span>
        </button>
      )}
      {deleted && asking && (
        <Confirm
          title="Delete this post?"
          text={`“${post.title}” will be gone for everybody.`}
          action="Delete post"
          work={() => api.deletePost(post.id)}
          done={deleted}
          close={() => setAsking(false)}
        />
      )}
    </article>
  )
}
