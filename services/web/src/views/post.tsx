import { useEffect, useState } from 'react'
import { isAbort } from '../api/problem'
import type { Post } from '../api/types'
import { ErrorNotice } from '../components/error-notice'
import { useNotify } from '../components/notify'
import { View } from '../components/view'
import { useServices, useSession } from '../hooks/services'
import { Link, navigate } from '../router'
import { PostCard } from './post-card'

/** One post at an address of its own. */
export function PostView({ id }: { id: string }) {
  const { api } = useServices()
  const state = useSession()
  const notify = useNotify()
  const [attempt, setAttempt] = useState(0)
  const [found, setFound] = useState<{ post?: Post; error?: unknown }>({})
  useEffect(() => {
    const controller = new AbortController()
    api.post(id, controller.signal).then(
      (post) => setFound({ post }),
      (error: unknown) => {
        if (!isAbort(error)) setFound({ error })
      },
    )
    return () => controller.abort()
  }, [api, id, attempt])

  const retry = () => {
    setFound({})
    setAttempt(attempt + 1)
  }
  const { post, error } = found
  const mine = state.status === 'signed-in' && post?.author.id === state.user.id
  const deleted = () => {
    notify('Post deleted.')
    navigate('/')
  }
  return (
    <View title={post?.title ?? 'Post'}>
      {post === undefined && error === undefined && (
        <p className="loading" role="status">
          Loading the post…
        </p>
      )}
      <ErrorNotice error={error} retry={retry} />
      {post && <PostCard post={post} level={1} {...(mine ? { deleted } : {})} />}
      <p>
        <Link href="/">All posts</Link>
      </p>
    </View>
  )
}
